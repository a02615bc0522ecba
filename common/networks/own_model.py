"""The one door for networks: `--model` names one of ours, one of ImageNet's, or a `.keras` file.

A file is read once, and tried once on the samples: what its network (keras_file.py) needs in order
to take images in [0, 1] and to give logits becomes a part of the model.
"""

import argparse
import os
import platform
import re
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import command, data, files
from common.command import Failure
from common.networks import imagenet, keras_file, mnist, weights_file
from common.run import class_labels

TRIED = 1000  # images, to find out which pixels a file's network expects
# The Keras models of the network that was opened or loaded last: see `load`.
_models, _loading = {}, threading.Lock()


class Network(NamedTuple):
    """The network that is attacked: all that a worker needs to load it."""

    model: str  # its name, or that of the file
    path: str | None  # of the file with its weights, from the root: a checkout may lie elsewhere
    sha256: str | None  # of that file, which has to be the same on every machine
    classes: int
    shape: tuple | None = None  # of an image
    names: tuple | None = None  # of the classes; None for ImageNet's
    pixels: str | None = None  # one of `keras_file.KINDS`; None for one of ours

    def settings(self):
        """What results record of it."""
        own = {"weights": self.sha256, "pixels": self.pixels, "names": self.names}
        return {"model": self.model} | (own if self.pixels else {})

    def label(self, index):
        """What a class is called."""
        return (self.names or class_labels.names())[index]

    def target(self, text, option="--target"):
        """The class that `text` stands for, as in `labels.index_of`; option: where it was given."""
        return class_labels.index_of(text, self.names, option)


def add_model(parser, default, *, photographs=False):
    """--model: one of our networks (for photographs, of ImageNet's), or a file; and --pixels."""
    parser.add_argument(
        "--model",
        type=lambda text: argument(text, photographs),
        default=default,
        help="which classifier, or a .keras file",
    )
    # Otherwise -1..1 would be taken for an option.
    parser._negative_number_matcher = re.compile(r"-\d")
    parser.add_argument(
        "--pixels",
        choices=keras_file.KINDS,
        help="of a .keras file: the pixels that its network expects (default: what fits best)",
    )


def argument(text, photographs=False):
    """A command line argument that names a network, or the file of one: a string or a `Path`."""
    if text in imagenet.NAMES if photographs else mnist.known(text):
        return text
    if Path(text).suffix or os.path.exists(text):
        return command.path(text)
    if not photographs:
        return mnist.argument(text)
    names = ", ".join(imagenet.NAMES)
    raise argparse.ArgumentTypeError(f"{text!r} is not a network: choose {names}, or a .keras file")


def stem(model):
    """What the names of results and figures call a model: a file keeps its ending, and so
    overwrites nothing of ours."""
    return model.name if isinstance(model, Path) else model


def open_network(model, x=None, y=None, *, names=None, pixels=None, weights=None):
    """What is known of the network that --model names: a `Network`, for `load`.

    x, y: of a file the samples, float32 (n, ...) in [0, 1] and int64 (n,); None of photographs
    without labels.  names: of its classes, if they are known.  pixels: what it expects, if that is.
    weights: the file with those of one of ImageNet's, if they are not the published ones.
    Raises `Failure` for a file that cannot be loaded or attacked, for labels and names that are not
    its own, and where nothing says which pixels it expects.
    """
    _models.clear()
    own, classes = isinstance(model, Path), data.CLASSES
    shape, path = None, mnist.weights_path(model)
    if weights:
        if own:
            raise Failure("--weights goes with our networks: a .keras file holds its own")
        weights_file.check(weights, remedy=imagenet.REMEDY)
    if model in imagenet.NAMES:
        classes, shape, path = imagenet.CLASSES, (imagenet.SIDE, imagenet.SIDE, 3), weights
    elif not own:
        names = tuple(map(str, range(classes)))
    sha256 = files.sha256(path) if path and path.is_file() else None
    place = path and files.from_root(os.path.abspath(path))
    network = Network(stem(model), place, sha256, classes, shape, names, pixels)
    if own:
        keras_model = keras_file.read(model)
        with keras_file.naming(model):
            network, models = _examine(keras_model, files.show(model), network, x, y)
        _models[network] = models
    return network


def read(args, limit=None, *, full_test_set=False):
    """The network that `args` name, and the samples that it is attacked on, or `limit` of them: the
    first, of a file for a network of one's own as many drawn.

    args: with model, pixels and samples.
    Returns (`Network`, x, y, indices): x float32 (n, ...), y int64 (n,), indices int64 (n,) or
    None.  Raises `Failure` as their readers do.
    """
    names = indices = None
    if full_test_set:
        x, y = (part[:limit] for part in data.load("test"))
        indices = np.arange(len(x))
    elif isinstance(args.model, Path):
        seed, dark = getattr(args, "seed", 0), bool(args.pixels)
        if args.samples.is_dir():
            keras_model = keras_file.read(args.model)
            with keras_file.naming(args.model):
                shape = keras_file.photograph_shape(keras_model)
            shape = shape[:2] if keras_file.is_grey(keras_model) else shape
            x, y, names = data.load_folder(args.samples, shape, limit, seed)
        else:
            x, y, names = data.load_own_samples(args.samples, limit, seed, dark=dark)
    else:
        x, y, indices = data.load_samples(args.samples, limit)
    network = open_network(args.model, x, y, names=names, pixels=args.pixels)
    return network, x, y, indices


def opened(args, limit=None, *, full_test_set=False):
    """What `read` gives, with its two Keras models: (network, model, judge, x, y, indices)."""
    network, *samples = read(args, limit, full_test_set=full_test_set)
    return network, *load(network), *samples


def load(network):
    """The Keras model to attack, and the one that judges (of ours, the same).

    What `open_network` has in hand is not read again, nor what was loaded last; threads that ask at
    the same time wait for the first.  Raises `Failure` where the file is another one here.
    """
    with _loading:
        if network not in _models:
            _models.clear()
            _models[network] = _load(network)
        return _models[network]


def _load(network):
    path = network.path and files.ROOT / network.path
    if network.sha256 and path.is_file() and files.sha256(path) != network.sha256:
        raise Failure(f"{path} is another file on {platform.node()}: copy it there from here")
    if network.pixels:
        return keras_file.load(path, network.shape, network.pixels)
    model = (imagenet if network.model in imagenet.NAMES else mnist).load(network.model, path)
    return model, model


def answers(model, judge, x):
    """What the network says of images x: (labels (n,) by the judge, logits (n, classes))."""
    logits = mnist.predict(model, x)
    return logits.argmax(axis=1) if judge is model else mnist.classify(judge, x), logits


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


def _examine(keras_model, name, network, x, y):
    """Find out how a file's network is to be used, and say so in one line; warnings on stderr.

    keras_model: as it was read.  name: of its file.  network: what is known so far.  x, y: as in
    `open_network`.  Returns the `Network`, and its two models.  Raises ValueError.
    """
    pixels, right, warning = network.pixels, "", ""
    shape = keras_file.photograph_shape(keras_model) if x is None else x.shape[1:]
    if x is None and not (pixels := pixels or keras_file.begins_with(keras_model)):
        kinds = " or ".join(keras_file.KINDS)
        raise ValueError(f"it does not say which pixels it expects: give --pixels {kinds}")
    kinds = [pixels] if pixels else keras_file.PIXELS
    fitted = {kind: keras_file.fit(keras_model, shape, kind) for kind in kinds}
    classes = next(iter(fitted.values())).output_shape[-1]
    names = network.names or tuple(map(str, range(classes)))
    if len(names) != classes:
        raise ValueError(f"it tells {classes} classes apart, but there are {len(names)} names")
    if x is not None:
        if y.max() >= classes:
            raise ValueError(f"it tells {classes} classes apart, but there is a label {y.max()}")
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
    if keras_file.is_binary(keras_model):
        said += ", one output z: class 1 where z > 0"
    elif keras_file.without_softmax(keras_model) is not keras_model:
        said += ", without the softmax or sigmoids at its end"
    print(said, flush=True)
    if warning:
        print(f"warning: {name} is {warning}", file=sys.stderr)
    judge = keras_file.fit(keras_model, shape, pixels, as_it_is=True)
    network = network._replace(classes=classes, shape=shape, names=names, pixels=pixels)
    return network, (fitted[pixels], judge)
