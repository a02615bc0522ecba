"""A network of one's own: the model of a `.keras` file, made fit for attack.

Files are loaded safely or not at all: nothing that they hold is run.  What a network needs in order
to take images in [0, 1] and to give logits becomes a part of the model: another range of its
pixels, an image without channels or as one long row, the softmax at its end left out.
"""

import argparse
import os
import re
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np

from common import command, contract, files, models
from common.command import Failure

# What a network may be fed for pixels p in [0, 1]: scale * p + offset.
PIXELS = {"0..1": (1, 0), "0..255": (255, 0), "-1..1": (2, -1)}
# The two other ways of Keras's own networks: blue, green and red less their mean; mean and spread.
KINDS = (*PIXELS, "caffe", "torch")
TORCH = {"mean": (0.485, 0.456, 0.406), "variance": (0.229**2, 0.224**2, 0.225**2)}
TRIED = 1000  # images, to find out which of them it is
SIDE = 224  # of photographs, where a network takes any
NEAR = 0.05  # in accuracy: too close to tell

SAVE = 'save it with model.save("mine.keras")'
CONVERT = (
    "convert it where you trust it: keras.models.load_model(FILE, compile=False)"
    '.save("mine.keras"), or build the network, fill it with load_weights(FILE), and save that'
)


def add_model(parser, default, ours=models.argument):
    """--model: one of our classifiers, or a file, and --pixels: what a file's network is fed.

    ours(text): the argument that names one of ours.
    """
    parser.add_argument(
        "--model",
        type=lambda text: argument(text, ours),
        default=default,
        help="which classifier, or a .keras file",
    )
    # Otherwise -1..1 would be taken for an option.
    parser._negative_number_matcher = re.compile(r"-\d")
    parser.add_argument(
        "--pixels",
        choices=KINDS,
        help="of a .keras file: the pixels that its network expects (default: what fits best)",
    )


def argument(text, ours=models.argument):
    """A command line argument that names a model, or the file of one: a string or a `Path`."""
    try:
        return ours(text)
    except argparse.ArgumentTypeError:
        if Path(text).suffix or os.path.exists(text):
            return command.path(text)
        raise


def stem(model):
    """What the names of results and figures call a model: a file keeps its ending, and so
    overwrites nothing of ours."""
    return model.name if isinstance(model, Path) else model


def load(path, shape, pixels):
    """The model of a file for images of `shape` in [0, 1], with logits for output.

    pixels: one of `KINDS`.  Raises `Failure` for whatever cannot be loaded, or attacked.
    """
    return fit(read(path), path, shape, pixels)


def read(path):
    """The Keras model of a `.keras` file as it was saved; raises `Failure` where it is none."""
    name = files.show(path)
    if path.is_dir() and (path / "saved_model.pb").exists():
        raise Failure(f"{name} is a SavedModel, and only .keras files are loaded: {CONVERT}")
    files.check_input(path, remedy=f"name a .keras file: {SAVE}")
    if path.suffix in (".h5", ".hdf5"):
        raise Failure(f"{name} is HDF5, from which nothing is loaded safely: {CONVERT}")
    members = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else ()
    if path.suffix != ".keras" or not {"config.json", "model.weights.h5"} <= set(members):
        raise Failure(f"{name} is truncated or not a .keras file: {SAVE}")
    check_version(metadata.version("keras"), name)

    import keras

    try:
        network = keras.models.load_model(path, compile=False, safe_mode=True)
        inputs = network.inputs
    except Exception as error:  # of as many types as there are ways to write such a file
        raise Failure(
            f"{name} is truncated, of a newer Keras, or holds what is not loaded safely, such as a "
            "Lambda or a class of one's own: save the same network made of Keras's own layers "
            f"({files.reason(error):.150})"
        ) from error
    if len(inputs) != 1:
        raise Failure(f"{name} has {len(inputs)} inputs, not one for the images")
    if not all(np.isfinite(weights).all() for weights in network.get_weights()):
        raise Failure(f"{name} holds weights that are not finite numbers: train it again")
    return network


def check_version(version, name):
    """Raise `Failure` for a Keras in which loading a file is known to run what it holds."""
    numbers = tuple(map(int, re.findall(r"\d+", version)[:3]))
    if numbers < (3, 12, 4) or numbers[:2] == (3, 13):
        raise Failure(
            f"{name} is not loaded by Keras {version}, which has known holes where it loads files: "
            'pip install --upgrade "keras>=3.12.4,!=3.13.*"'
        )


def fit(network, path, shape, pixels):
    """The model that takes images of `shape` in [0, 1] and gives the logits of `network`.

    path: what messages call it.  Raises `Failure` where there is no such model.
    """
    import keras

    form = fed(network, path, shape)
    image = keras.Input(shape)
    x = image if form == shape else keras.layers.Reshape(form)(image)
    try:
        model = keras.Model(image, logits(network)(scaled(x, pixels)), name=network.name)
        contract.count_classes(model, np.zeros((2, *shape), np.float32))
    except ValueError as error:
        raise Failure(f"{files.show(path)}: {error}") from error
    return model


def fed(network, path, shape):
    """The shape in which images of `shape` go into the network: with channels, without, or flat.

    path: what messages call it.  Raises `Failure` where they do not fit it.
    """
    takes = tuple(network.inputs[0].shape[1:])
    without = shape[:-1] if shape[-1] == 1 else shape
    for form in (shape, (*shape, 1), without, (int(np.prod(shape)),)):
        if fits(takes, form):
            return form
    raise Failure(
        f"{files.show(path)} takes images {takes}, and these are {shape}: give samples of its size "
        "and channels with --samples"
    )


def fits(takes, shape):
    """Whether an input of the shape `takes`, where None is any size, takes `shape`."""
    return len(takes) == len(shape) and all(
        size in (None, given) for size, given in zip(takes, shape, strict=True)
    )


def scaled(x, pixels):
    """The Keras tensor that the network is fed, for the tensor x of pixels in [0, 1]."""
    from keras import layers, ops

    if pixels == "torch":
        return layers.Normalization(**TORCH)(x)
    if pixels == "caffe":
        from common.imagenet import networks

        return ops.subtract(255 * ops.flip(x, axis=-1), np.array(networks.BGR_MEAN, np.float32))
    scale, offset = PIXELS[pixels]
    return x if pixels == "0..1" else layers.Rescaling(scale, offset)(x)


def logits(network):
    """`network` without its softmax or sigmoids; of one output z, the two logits 0 and z."""
    import keras

    # What ends in neither is tried, and refused where it gives probabilities (contract.py).
    found = network
    if not models.ends_in_logits(network):
        try:
            found = models.logits_of(network)
        except ValueError:
            if is_binary(network):
                raise
    if not is_binary(network):
        return found
    z = found.outputs[0]
    both = keras.layers.Dense(2, use_bias=False)
    model = keras.Model(found.inputs, both(z), name=network.name)
    both.set_weights([np.array([[0, 1]], np.float32)])
    return model


def is_binary(network):
    return tuple(network.outputs[0].shape[1:]) == (1,)


def begins_with(network):
    """The pixels that a network expects, where its first layer says so; None otherwise."""
    from keras import Model, layers

    for layer in network._flatten_layers(include_self=False):
        if isinstance(layer, layers.Rescaling):
            return "0..255" if np.max(layer.scale) < 0.1 else "0..1"
        if isinstance(layer, layers.Normalization):
            return "0..255" if np.max(np.abs(layer.mean)) > 2 else "0..1"
        if (
            not isinstance(layer, Model | layers.InputLayer)
            and "Random" not in type(layer).__name__
        ):
            return None
    return None


def find_pixels(network, path, x, y):
    """The accuracy on images x (n, ...) in [0, 1] with labels y (n,) for each of `PIXELS`: a dict.

    The first are those for which it is highest.
    """
    rows = slice(TRIED)
    found = {}
    for pixels in PIXELS:
        model = fit(network, path, x.shape[1:], pixels)
        found[pixels] = float((models.classify(model, x[rows]) == y[rows]).mean())
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def examine(path, x, y, names=None, pixels=None):
    """Find out how a file's network is to be used, and say so in one line; warnings on stderr.

    x: float32 (n, ...) in [0, 1].  y: int64 (n,).  names: of the classes, if they are known.
    pixels: what it expects, if that is known.
    Returns (pixels, classes).  Raises `Failure` for labels and names that are not the network's.
    """
    network, name = read(path), files.show(path)
    found = {} if pixels else find_pixels(network, path, x, y)
    pixels = pixels or next(iter(found))
    model = fit(network, path, x.shape[1:], pixels)
    classes = contract.count_classes(model, x)
    if y.max() >= classes or len(names or ()) not in (0, classes):
        what = f"a label {y.max()}" if y.max() >= classes else f"{len(names)} names"
        raise Failure(f"{name} tells {classes} classes apart, but the samples have {what}")
    accuracy = found.get(pixels, (models.classify(model, x[:TRIED]) == y[:TRIED]).mean())
    parts = [f"{name}: {classes} classes", f"pixels {pixels}, {accuracy:.1%} right"]
    parts += [f"as {other} {share:.1%}" for other, share in list(found.items())[1:]]
    if is_binary(network):
        parts.append("one output z: class 1 where z > 0")
    elif not models.ends_in_logits(network):
        black = np.zeros((1, *fed(network, path, x.shape[1:])), np.float32)
        softmax = np.allclose(network(black).numpy().sum(), 1, atol=1e-2)
        parts += [
            "its softmax left out" if softmax else "its sigmoids left out: one class an image"
        ]
    print(", ".join(parts), flush=True)
    close = [other for other, share in found.items() if accuracy - share < NEAR]
    if accuracy < 1 / classes + 2 / (classes * len(y[:TRIED])) ** 0.5:
        warn(name, "no better than chance: mend --pixels, or the order of the classes")
    elif len(close) > 1:
        warn(name, f"as good with pixels {' and '.join(close)}: say which with --pixels")
    return pixels, classes


def examine_photographs(path, names=None, pixels=None):
    """Find out how a file's network takes photographs, and say so in one line.

    names, pixels: as in `examine`.  Returns (shape, pixels, classes), shape (height, width, 3).
    Raises `Failure` for a network that does not take them, or does not say which pixels.
    """
    network, name = read(path), files.show(path)
    takes = tuple(network.inputs[0].shape[1:])
    if len(takes) != 3 or takes[2] not in (None, 3):
        raise Failure(f"{name} takes images {takes}, and a photograph is (height, width, 3)")
    shape = (takes[0] or SIDE, takes[1] or SIDE, 3)
    pixels = pixels or begins_with(network)
    if pixels is None:
        raise Failure(
            f"{name} does not say which pixels it expects: give --pixels {' or '.join(KINDS)}"
        )
    classes = contract.count_classes(
        fit(network, path, shape, pixels), np.zeros((0, *shape), np.float32)
    )
    if names is not None and len(names) != classes:
        raise Failure(f"{name} tells {classes} classes apart, and --classes names {len(names)}")
    print(f"{name}: {classes} classes, pixels {pixels}, photographs {shape[0]} x {shape[1]}")
    return shape, pixels, classes


def warn(name, what):
    print(f"warning: {name} is {what}", file=sys.stderr)
