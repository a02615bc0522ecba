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

import socket

import numpy as np

from common import files, set_keras
from common.command import Failure
from common.networks import efficientnet_lite, weights_file

TITLES = {
    "efficientnet_lite0": "EfficientNet-Lite0",
    "vgg16": "VGG16",
    "resnet50": "ResNet50",
    "mobilenet_v2": "MobileNetV2",
}
NAMES = tuple(TITLES)
SIDE = 224
CLASSES = 1000

# Means of the ImageNet training set in blue, green and red, which VGG16 and ResNet50 subtract.
BGR_MEAN = (103.939, 116.779, 123.68)
REMEDY = "give Keras's own file of them with --weights, or leave it out to download them"
# Seconds without an answer after which a download is given up.
PATIENCE = 30


def title(name):
    """What tables and figures call a network; a file, by its name."""
    return TITLES.get(name, name)


def preprocess(name, x):
    """What the network `name` of keras.applications is fed for images x in [0, 1].

    Equal to keras.applications' own `preprocess_input` of pixels from 0 to 255, in operations
    that TensorFlow can differentiate and a Keras model can hold.
    """
    from keras import ops

    pixels = ops.multiply(x, np.float32(255))
    if name == "mobilenet_v2":
        return ops.subtract(ops.divide(pixels, np.float32(127.5)), np.float32(1))
    return ops.subtract(ops.flip(pixels, axis=-1), np.array(BGR_MEAN, np.float32))


def load(name, weights=None):
    """A trained network, with the weights of the file `weights` or else its published ones.

    Raises `Failure` when the file cannot be read or holds other weights, or when there is no
    file and no network.
    """
    set_keras()
    if name == efficientnet_lite.NAME:
        if weights is None:
            return efficientnet_lite.load()
        network = efficientnet_lite.build()
        _read_weights(network, name, weights)
        return network

    import keras

    image = keras.Input((SIDE, SIDE, 3))
    network = _application(name, None) if weights else _download(name)
    if weights:
        _read_weights(network, name, weights)
    return keras.Model(image, network(preprocess(name, image)), name=name)


def _application(name, weights):
    """The network of keras.applications with logits for output, which takes preprocessed images."""
    import keras

    function = {
        "vgg16": keras.applications.VGG16,
        "resnet50": keras.applications.ResNet50,
        "mobilenet_v2": keras.applications.MobileNetV2,
    }[name]
    return function(weights=weights, classifier_activation=None, input_shape=(SIDE, SIDE, 3))


def _download(name):
    """The network with the weights that Keras downloads, or has downloaded before."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        return _application(name, "imagenet")
    except Exception as error:  # whatever the network, a proxy or the cache folder raises
        raise Failure(
            f"the weights of {TITLES[name]} are not here and could not be downloaded "
            f"({files.reason(error)}): connect to the internet, or give Keras's file of them "
            "with --weights FILE.h5 (--model efficientnet_lite0 needs neither)"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def _read_weights(network, name, path):
    """Fill the network from a Keras .h5 or .weights.h5 file."""
    title = f"{TITLES[name]} with its {CLASSES} classes"
    weights_file.fill(network, path, title=title, remedy=REMEDY)
