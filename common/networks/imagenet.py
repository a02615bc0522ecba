"""The ImageNet networks, each with its preprocessing inside.

    efficientnet_lite0   its trained weights are installed by pip with the other requirements
    vgg16                Simonyan & Zisserman 2015
    resnet50             He et al. 2016
    mobilenet_v2         Sandler et al. 2018

Input (n, 224, 224, 3) float32 in [0, 1], output logits (n, 1000).  Because the preprocessing is
part of the model, epsilon, noise and clipping mean the same for all of them: pixel values.

The other three are those of keras.applications.  Keras downloads their weights the first time; a
file with the weights in Keras's own format does as well.
"""

from common import files, set_keras
from common.command import Failure
from common.networks import efficientnet_lite, keras_file, weights_file

TITLES = {
    "efficientnet_lite0": "EfficientNet-Lite0",
    "vgg16": "VGG16",
    "resnet50": "ResNet50",
    "mobilenet_v2": "MobileNetV2",
}
NAMES = tuple(TITLES)
SIDE = 224
CLASSES = 1000

# What keras.applications feeds the others: keras_file.py says what these stand for.
PIXELS = {"vgg16": "caffe", "resnet50": "caffe", "mobilenet_v2": "-1..1"}
REMEDY = "give Keras's own file of them with --weights, or leave it out to download them"


def title(name):
    """What tables and figures call a network; a file, by its name."""
    return TITLES.get(name, name)


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
