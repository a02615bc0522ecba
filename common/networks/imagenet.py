"""The networks for photographs: those of ImageNet, each with its preprocessing inside.

    efficientnet_lite0   its trained weights are installed by pip with the other requirements
    vgg16                Simonyan & Zisserman 2015
    resnet50             He et al. 2016
    mobilenet_v2         Sandler et al. 2018

Input (n, 224, 224, 3) float32 in [0, 1], output logits (n, 1000).  Because the preprocessing is
part of the model, epsilon, noise and clipping mean the same for all of them: pixel values.

The other three are those of keras.applications.  Keras downloads their weights the first time; a
file with the weights in Keras's own format does as well.  And the networks of `.keras` files.
"""

from pathlib import Path

import numpy as np

from common import files, set_keras
from common.command import Failure
from common.networks import efficientnet_lite, keras_file, own_model, weights_file
from common.search.logits import calls

TITLES = {
    "efficientnet_lite0": "EfficientNet-Lite0",
    "vgg16": "VGG16",
    "resnet50": "ResNet50",
    "mobilenet_v2": "MobileNetV2",
}
NAMES = tuple(TITLES)
SIDE = keras_file.SIDE
CLASSES = 1000

# What keras.applications feeds the others: keras_file.py says what these stand for.
PIXELS = {"vgg16": "caffe", "resnet50": "caffe", "mobilenet_v2": "-1..1"}
REMEDY = "give Keras's own file of them with --weights, or leave it out to download them"


def title(name):
    """What tables and figures call a network; a file, by its name."""
    return TITLES.get(name, name)


def open_any(model, names=None, *, pixels=None, weights=None):
    """As `own_model.open_network`: one of these, with its weights as in `load`, or that of a file,
    with names and pixels; `Failure` where its beginning does not say those."""
    if weights if isinstance(model, Path) else names or pixels:
        ways = "--weights goes with our networks, --classes and --pixels with a .keras file"
        raise Failure(f"{ways}, and --model is {own_model.stem(model)}")
    if model in NAMES:
        if weights:
            weights_file.check(weights, remedy=REMEDY)
        return own_model.in_file(model, weights, load, classes=CLASSES, shape=(SIDE, SIDE, 3))
    with keras_file.naming(model):
        network = keras_file.read(model)
        shape, pixels = keras_file.photograph_shape(network), pixels or begins_with(network)
        if not pixels:
            kinds = " or ".join(keras_file.KINDS)
            raise ValueError(f"it does not say which pixels it expects: give --pixels {kinds}")
        models, ending = keras_file.pair(network, shape, pixels), keras_file.ending(network)
        return own_model.known(model, models, pixels, names, ending)


def load(name, weights=None):
    """A trained network, with the weights of the file `weights` or else its published ones.

    Raises `Failure` when the file cannot be read or holds other weights, or when there is no
    file and no network.
    """
    set_keras()
    lite = name == efficientnet_lite.NAME
    if lite and weights is None:
        return efficientnet_lite.load()
    network = efficientnet_lite.build() if lite else _application(name, weights)
    if weights:
        title = f"{TITLES[name]} with its {CLASSES} classes"
        weights_file.fill(network, weights, title=title, remedy=REMEDY)
    if lite:
        return network

    import keras

    image = keras.Input((SIDE, SIDE, 3))
    return keras.Model(image, network(keras_file.scaled(image, PIXELS[name])), name=name)


def _application(name, weights):
    """The network of keras.applications with logits for output, which takes scaled images: without
    `weights`, a file, with those that Keras downloads, or has downloaded before."""
    from keras import applications

    make = getattr(applications, TITLES[name])
    settings = {"classifier_activation": None, "input_shape": (SIDE, SIDE, 3)}
    try:
        return make(weights=None if weights else "imagenet", **settings)
    except Exception as error:  # whatever the network, a proxy or the cache folder raises
        raise Failure(
            f"the weights of {TITLES[name]} are not here and could not be downloaded "
            f"({files.reason(error)}): connect to the internet, or give Keras's file of them "
            "with --weights FILE.h5 (--model efficientnet_lite0 needs neither)"
        ) from error


def begins_with(network):
    """The pixels that a network expects, where what it does first says so; None otherwise."""
    from keras import layers

    first = first_operation(network)
    if isinstance(first, layers.Rescaling) and np.ndim(first.scale) == np.ndim(first.offset) == 0:
        black_and_white = first.offset, 255 * first.scale + first.offset
        if any(np.allclose(black_and_white, (low, 1), atol=1e-3) for low in (0, -1)):
            return "0..255"
    return None


def first_operation(network):
    """The first operation on images, also of a model within, but for augmenting, which is off.

    The network itself where there is more than one, None where there is none.
    """
    from keras import Model

    (tensor,), done = calls(network)
    while True:
        used = [call for call in done if any(fed is tensor for fed in call[1])]
        if len(used) != 1:
            return network if used else None
        ((first, _, tensor),) = used
        first = first_operation(first) if isinstance(first, Model) else first
        if first is not None and not type(first).__name__.startswith("Random"):
            return first
