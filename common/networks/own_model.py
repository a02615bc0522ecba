"""A network of one's own: the model of a `.keras` file, made fit for attack.

What its network (keras_file.py) needs in order to take images in [0, 1] and to give logits becomes
a part of the model: another range of its pixels, an image without channels or as one long row, the
softmax at its end left out.
"""

import argparse
import os
import platform
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import command, data, files
from common.command import Failure
from common.networks import keras_file, mnist
from common.run import class_labels
from common.search import checks

# What a network may be fed for pixels p in [0, 1]: scale * p + offset.
PIXELS = {"0..1": (1, 0), "0..255": (255, 0), "-1..1": (2, -1)}
# The two other ways of Keras's own networks: blue, green and red less their mean; mean and spread.
KINDS = (*PIXELS, "caffe", "torch")
TORCH = {"mean": (0.485, 0.456, 0.406), "variance": (0.229**2, 0.224**2, 0.225**2)}
TRIED = 1000  # images, to find out which of them it is
SIDE = 224  # of photographs, where a network takes any


class Network(NamedTuple):
    """The network that is attacked, ours or that of a file: all that a worker needs to load it."""

    model: str  # its name, or that of the file
    path: str | None  # of the file with its weights, from the root: a checkout may lie elsewhere
    sha256: str | None  # of that file, where it has to be the same on every machine
    classes: int
    shape: tuple | None = None  # of an image
    names: tuple | None = None  # of the classes
    pixels: str | None = None  # one of `KINDS`; None for one of ours

    def settings(self):
        """What results record of it."""
        names = self.names and list(self.names)
        own = {"weights": self.sha256, "pixels": self.pixels, "names": names}
        return {"model": self.model} | (own if self.pixels else {})

    def label(self, place):
        """What a class is called."""
        return self.names[place] if self.names else str(place)

    def target(self, text, option="--target"):
        """The class that `text` stands for, as in `labels.index_of`; option: where it was given."""
        own = self.names or tuple(map(str, range(self.classes)))
        return class_labels.index_of(text, own, option)


def same_file(network, path):
    """Raise `Failure` unless the file of a `Network` is, as `path` on this machine, what it was."""
    if network.sha256 and path.is_file() and files.sha256(path) != network.sha256:
        raise Failure(f"{path} is another file on {platform.node()}: copy it there from here")


def add_model(parser, default, ours=mnist.argument):
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


def argument(text, ours=mnist.argument):
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
    """Two models of a file for images of `shape` in [0, 1]: to attack, with logits for output, and
    to judge, the network as it is, which alone says what its answer is.

    pixels: one of `KINDS`.  Raises `Failure` for whatever cannot be loaded, or attacked.
    """
    network = keras_file.read(path)
    return fit(network, path, shape, pixels), fit(network, path, shape, pixels, as_it_is=True)


def fit(network, path, shape, pixels, *, as_it_is=False):
    """The model that takes images of `shape` in [0, 1] and gives the logits of `network`.

    A network of one channel sees images in colour by their luminance.  Of one output z they are 0
    and z.  as_it_is: with the softmax or sigmoids at its end, in its own precision; of one
    probability p the two are 0.5 and p.  path: what messages call it.  Raises `Failure` where there
    is no such model.
    """
    import keras

    x = image = keras.Input(shape)
    if is_grey(network) and shape[2:] == (3,):
        x = keras.ops.image.rgb_to_grayscale(image)
        shape = (*shape[:2], 1)
    form = fed(network, path, shape)
    x = x if form == shape else keras.layers.Reshape(form)(x)
    try:
        logits = without_squashing(network)
        z = (network if as_it_is else logits)(scaled(x, pixels))
        if is_binary(network):
            # Here, not in the network, one of whose layers may have the name of this one.
            both = keras.layers.Dense(2)
            z = both(z)
            half = 0.5 if as_it_is and logits is not network else 0
            both.set_weights([np.array([[0, 1]], np.float32), np.array([half, 0], np.float32)])
        model = keras.Model(image, z, name=network.name)
        if not as_it_is:
            checks.count_classes(model, np.zeros((2, *image.shape[1:]), np.float32))
    except ValueError as error:
        raise Failure(f"{files.show(path)}: {error}") from error
    return model


def answers(model, judge, x):
    """What the network says of images x: (labels (n,) by the judge, logits (n, classes))."""
    logits = mnist.predict(model, x)
    return logits.argmax(axis=1) if judge is model else mnist.classify(judge, x), logits


def fed(network, path, shape):
    """The shape in which images of `shape` go into the network: with channels, without, or flat.

    path: what messages call it.  Raises `Failure` where they do not fit it.
    """
    takes = tuple(network.inputs[0].shape[1:])
    without = shape[:-1] if shape[-1] == 1 else shape
    for form in (shape, (*shape, 1), without, (int(np.prod(shape)),)):
        if len(takes) == len(form) and all(
            size in (None, given) for size, given in zip(takes, form, strict=True)
        ):
            return form
    raise Failure(
        f"{files.show(path)} takes images {takes}, and these are {shape}: give samples of its size "
        "and channels with --samples"
    )


def scaled(x, pixels):
    """The Keras tensor that the network is fed, for the tensor x of pixels in [0, 1]."""
    from keras import layers, ops

    if pixels == "torch":
        return layers.Normalization(**TORCH)(x)
    if pixels == "caffe":
        from common.networks import imagenet

        return ops.subtract(255 * ops.flip(x, axis=-1), np.array(imagenet.BGR_MEAN, np.float32))
    scale, offset = PIXELS[pixels]
    return x if pixels == "0..1" else layers.Rescaling(scale, offset)(x)


def without_squashing(network):
    """`network` without its softmax or sigmoids."""
    try:
        return network if mnist.ends_in_logits(network) else mnist.logits_of(network)
    except ValueError:
        if is_binary(network):
            raise
        # What ends in neither is tried, and refused where it gives probabilities (contract.py).
        return network


def is_grey(network):
    """Whether a network takes images of one channel."""
    takes = tuple(network.inputs[0].shape[1:])
    return len(takes) == 2 or takes[2:] == (1,)


def is_binary(network):
    """Whether a network has one output for an image."""
    return tuple(network.outputs[0].shape[1:]) == (1,)


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

    operations = Model(network.inputs, network.outputs).operations
    tensor = network.inputs[0]
    while True:
        nodes = [node for operation in operations for node in operation._inbound_nodes]
        used = {n.operation: n for n in nodes if any(fed is tensor for fed in n.input_tensors)}
        if len(used) != 1:
            return network if used else None
        ((first, node),) = used.items()
        first = first_operation(first) if isinstance(first, Model) else first
        if first is not None and not type(first).__name__.startswith("Random"):
            return first
        tensor = node.output_tensors[0]


def cross_entropy(z, y):
    """The mean cross entropy of labels y (n,) by logits z (n, classes), in nats.

    Probabilities are their softmax (sigmoids give the same, where just one class holds), and at
    least 1e-7.  A thousandth of each label is of all classes alike: else a network that is always
    right would do the better the larger its pixels.
    """
    from scipy.special import log_softmax

    log_p = log_softmax(z.astype(np.float64), axis=1)
    of_label = np.maximum(log_p[np.arange(len(y)), y], np.log(1e-7))
    return np.nan_to_num(-of_label.mean() - 1e-3 * log_p.mean(), nan=np.inf)


def examine(path, x, y, names=None, pixels=None):
    """Find out how a file's network is to be used, and say so in one line; warnings on stderr.

    x: float32 (n, ...) in [0, 1].  y: int64 (n,), or None where no labels are known, as of
    photographs.  names: of the classes, if they are known.  pixels: what it expects, if that is.
    Returns a `Network`.  Raises `Failure` for labels and names that are not its own, and where
    nothing says which pixels it expects.
    """
    network, name, shape = keras_file.read(path), files.show(path), tuple(x.shape[1:])
    if y is None and not (pixels := pixels or begins_with(network)):
        kinds = " or ".join(KINDS)
        raise Failure(f"{name} does not say which pixels it expects: give --pixels {kinds}")
    if y is not None and is_grey(network) and shape[2:] == (3,):
        raise Failure(
            f"{name} takes grey images, and these are in colour: give grey ones (--samples)"
        )
    fitted = {kind: fit(network, path, shape, kind) for kind in ([pixels] if pixels else PIXELS)}
    classes = checks.count_classes(next(iter(fitted.values())), x)
    if names is not None and len(names) != classes:
        raise Failure(f"{name} tells {classes} classes apart, but there are {len(names)} names")
    if y is not None and y.max() >= classes:
        raise Failure(f"{name} tells {classes} classes apart, but there is a label {y.max()}")
    right = warning = ""
    if y is not None:
        few = data.drawn(len(x), TRIED)
        logits = {kind: mnist.predict(model, x[few]) for kind, model in fitted.items()}
        losses = {kind: cross_entropy(z, y[few]) for kind, z in logits.items()}
        pixels, *others = sorted(losses, key=losses.get)
        accuracy = (logits[pixels].argmax(axis=1) == y[few]).mean()
        right = f" ({accuracy:.1%} right, cross entropy {losses[pixels]:.3g}"
        right += "".join(f", as {other} {losses[other]:.3g}" for other in others) + ")"
        if accuracy < 1 / classes + 2 / (classes * len(few)) ** 0.5:
            warning = "no better than chance: check --pixels and the order of the classes"
        elif others and losses[others[0]] <= 1.1 * losses[pixels]:
            warning = f"as good with pixels {pixels} and {others[0]}: say which with --pixels"
    said = f"{name}: {' x '.join(map(str, shape))}, {classes} classes, pixels {pixels}{right}"
    if is_binary(network):
        said += ", one output z: class 1 where z > 0"
    elif not mnist.ends_in_logits(network):
        said += ", without the softmax or sigmoids at its end"
    print(said, flush=True)
    if warning:
        print(f"warning: {name} is {warning}", file=sys.stderr)
    place = files.from_root(os.path.abspath(path))
    return Network(stem(path), place, files.sha256(path), classes, shape, names, pixels)


def photograph_shape(path):
    """The shape (height, width, 3) of the photographs that a file's network takes.

    Raises `Failure` for a network that takes none.
    """
    takes = tuple(keras_file.read(path).inputs[0].shape[1:])
    if len(takes) not in (2, 3) or takes[2:] not in ((), (None,), (1,), (3,)):
        raise Failure(
            f"{files.show(path)} takes images {takes}, and a photograph is (height, width, 3), or "
            "grey"
        )
    return takes[0] or SIDE, takes[1] or SIDE, 3
