"""The one door for networks: `--model` names one of ours, or a `.keras` file (keras_file.py), which
is read once, and tried once on the samples."""

import argparse
import functools
import os
import platform
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import command, data, files
from common.command import Failure
from common.networks import keras_file, mnist
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
    loader: Callable | None = None  # of one of ours: loader(model, path) is the Keras model

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


def add_model(parser, default, ours=None):
    """--model: one of `ours`, or a file; and --pixels.  ours: as in `argument`."""
    read = functools.partial(argument, ours=ours)
    command.option(parser, "--model", read, default, "which classifier, or a .keras file")
    # Otherwise -1..1 would be taken for an option.
    parser._negative_number_matcher = re.compile(r"-\d")
    pixels = f"of a .keras file: {', '.join(keras_file.KINDS)} (default: what fits best)"
    parser.add_argument("--pixels", choices=keras_file.KINDS, metavar="RANGE", help=pixels)


def argument(text, ours=None):
    """A command line argument that names a network, or the file of one: a string or a `Path`.

    ours: the names of our networks, if they are not those of mnist.py.
    """
    if text in ours if ours else mnist.known(text):
        return text
    if Path(text).suffix or os.path.exists(text):
        return command.path(text)
    if not ours:
        return mnist.argument(text)
    names = ", ".join(ours)
    raise argparse.ArgumentTypeError(f"{text!r} is not a network: choose {names}, or a .keras file")


def stem(model):
    """What the names of results and figures call a model: a file keeps its ending, and so
    overwrites nothing of ours."""
    return model.name if isinstance(model, Path) else model


def open_network(model, x=None, y=None, *, names=None, pixels=None):
    """What is known of a network of mnist.py, by its name, or of a file: a `Network`, for `load`.

    Of a file: x, y, the samples, float32 (n, ...) in [0, 1] and int64 (n,); names of its classes,
    and the pixels that it expects, if they are known.  Raises `Failure` where it cannot be loaded
    or attacked, and for labels and names that are not its own.
    """
    if isinstance(model, Path):
        with keras_file.naming(model):
            keras_model, shape = keras_file.read(model), x.shape[1:]
            kinds = [pixels] if pixels else keras_file.PIXELS
            fitted = {kind: keras_file.fit(keras_model, shape, kind) for kind in kinds}
            pixels, right = _best(fitted, x, y, files.show(model))
            models = fitted[pixels], keras_file.fit(keras_model, shape, pixels, as_it_is=True)
            return known(model, models, pixels, names, right + keras_file.ending(keras_model))
    if pixels:
        raise Failure(f"--pixels goes with a .keras file, and {model} is one of our networks")
    names = tuple(map(str, range(data.CLASSES)))
    return in_file(model, mnist.weights_path(model), mnist.load, classes=len(names), names=names)


def in_file(name, path, loader=None, **more):
    """The `Network` whose weights lie at `path`, a file that may be missing, or nowhere: None."""
    sha256 = files.sha256(path) if path and path.is_file() else None
    place = path and command.from_root(os.path.abspath(path))
    return Network(name, place, sha256, loader=loader, **more)


def open_with_samples(args, limit=None, *, full_test_set=False):
    """The network that `args` (model, pixels, samples) name, and what it is attacked on.

    limit: the first so many digits, of a network of one's own as many samples drawn.
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
    """As `open_with_samples`, and with its models: (network, model, judge, x, y, indices)."""
    network, *samples = open_with_samples(args, limit, full_test_set=full_test_set)
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
    model = network.loader(network.model, path)
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


def _best(fitted, x, y, name):
    """Which of the models by their pixels the samples fit best, and how well: two strings."""
    classes = next(iter(fitted.values())).output_shape[-1]
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
        print(f"warning: {name} is {warning}", file=sys.stderr)
    elif others and losses[others[0]] <= 1.1 * losses[pixels]:
        warning = f"as good with pixels {pixels} and {others[0]}: say which with --pixels"
        print(f"warning: {name} is {warning}", file=sys.stderr)
    return pixels, right


def known(path, models, pixels, names, how):
    """The `Network` of a file, of which is said in one line how it is used.

    models: to attack and to judge, fit for these pixels.  names: of the classes, or None.
    """
    shape, classes = models[0].input_shape[1:], models[0].output_shape[-1]
    names = names or tuple(map(str, range(classes)))
    if len(names) != classes:
        raise ValueError(f"it tells {classes} classes apart, but there are {len(names)} names")
    size = " x ".join(map(str, shape))
    print(f"{files.show(path)}: {size}, {classes} classes, pixels {pixels}{how}", flush=True)
    network = in_file(path.name, path, classes=classes, shape=shape, names=names, pixels=pixels)
    _models.clear()
    _models[network] = models
    return network
