"""Which images `epsilon.py` and `two_to_six.py` draw, so that both show the same: those of one
class, a 2 say, that the model can be made to see as another."""

from typing import NamedTuple

import numpy as np

from common import command, files
from common.command import Failure
from common.networks import mnist, own_model


class Pair(NamedTuple):
    """Two classes, and the words for them."""

    source: int
    target: int
    source_name: str
    target_name: str
    sources: str  # in the plural
    targets: str


class Choice(NamedTuple):
    """Images of one class and the smallest epsilon that turns each into the target."""

    x: np.ndarray  # float32 (count, ...)
    indices: np.ndarray  # int64 (count,), in the test set or sample file
    eps: np.ndarray  # float32 (count,), pixel units, NaN where none is enough
    reach: str  # for how many of those tried some epsilon is enough: a sentence


def parse(parser, argv):
    """The command line, with --model, --source, --target, --count and --samples."""
    own_model.add_model(parser, "softmax")
    parser.add_argument("--source", default="2", help="the digit it is, or the class of a file")
    parser.add_argument("--target", default="6", help="the digit, or class, to be seen")
    command.add_count(parser, "--count", "how many images", 10)
    samples = "digits of yours, or the samples of a .keras file (default: the test set)"
    command.option(parser, "--samples", command.path, None, samples)
    args = parser.parse_args(argv)
    if args.source == args.target:
        parser.error(f"--source and --target are both {args.source}: choose two classes")
    return args


def read(args):
    """The network that `args` name, and the images of --source that it classifies as that.

    Returns (network, model, judge, pair, x, indices): an `own_model.Network`, the two Keras models
    of `own_model.load`, a `Pair`, and x and indices as in `Choice`.
    Raises `Failure` where both are one class, or too few images are there.
    """
    network, model, judge, x, y, _ = own_model.opened(args, full_test_set=args.samples is None)
    source, target = network.target(args.source, "--source"), network.target(args.target)
    if source == target:  # one by its name, say, and one by its number
        raise Failure(f"--source and --target are both class {source}: choose two classes")
    names = network.label(source), network.label(target)
    plurals = [f"{name}s" for name in names]
    if network.pixels:  # a file's, whose classes may be called anything
        plurals = [f"images of {names[0]}", names[1]]
    where = "the test set" if args.samples is None else files.show(args.samples)
    least = args.count if args.samples is None else 1
    indices = mnist.correctly_classified([judge], x, y, where, source=source, count=least)
    return network, model, judge, Pair(source, target, *names, *plurals), x[indices], indices


def choose(model, x, indices, pair, count):
    """The first `count` images that one step turns into the target: a `Choice`.

    x, indices: the images that are tried in order, as `read` gives them.  Where they hold fewer,
    the first of the others fill up the choice, with NaN as their epsilon.
    """
    from method2_fgsm.smallest_eps import smallest_eps

    eps = np.empty(0, np.float32)
    while len(eps) < len(x) and np.isfinite(eps).sum() < count:
        batch = x[len(eps) : len(eps) + max(count, 20)]
        eps = np.append(eps, smallest_eps(model, batch, np.full(len(batch), pair.target))[0])
    if np.isfinite(eps).sum() >= count:
        # What was tried after the last image needed is not counted.
        eps = eps[: np.flatnonzero(np.isfinite(eps))[count - 1] + 1]
    rows = np.argsort(np.isnan(eps), kind="stable")[:count]
    reach = (
        f"one step turns {np.isfinite(eps).sum()} of the first {len(eps)} correctly classified "
        f"{pair.sources} into a {pair.target_name}"
    )
    return Choice(x[rows], indices[rows], eps[rows], reach)
