"""Which test digits the two studies draw: those of one digit that the model can be made to see
as another.

`epsilon.py` and `two_to_six.py` share their command line and their choice of images, so that
both show the same ones.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from common import command, data, models
from common.command import Failure


@dataclass
class Choice:
    """Images of one digit and the smallest epsilon that turns each into the target.

    x: float32 (count, 28, 28).  indices: int64 (count,), places in the test set.  eps: float32
    (count,), pixel units, NaN where no epsilon will do.  tried: how many correctly classified
    images were looked at in all, and reachable: for how many of those some epsilon exists.
    """

    x: np.ndarray
    indices: np.ndarray
    eps: np.ndarray
    tried: int
    reachable: int


def add_arguments(parser):
    """--model, --source, --target and --count."""
    parser.add_argument("--model", type=models.argument, default="softmax", help="which classifier")
    parser.add_argument("--source", type=command.digit, default=2, help="the digit it is")
    parser.add_argument("--target", type=command.digit, default=6, help="the digit to be seen")
    parser.add_argument("--count", type=command.positive_int, default=10, help="how many images")


def check_arguments(parser, args):
    """End the script with exit code 2 when source and target are the same digit."""
    if args.source == args.target:
        parser.error(f"--source and --target are both {args.source}: choose two digits")


def correctly_classified(model, source, count):
    """The test images of a digit that the model gets right: (x, indices), in test set order.

    Raises `Failure` when there are fewer than `count`.
    """
    x, y = data.load("test")
    indices = np.flatnonzero(y == source)
    indices = indices[models.classify(model, x[indices]) == source]
    if len(indices) < count:
        raise Failure(
            f"--count {count}: the {model.name} classifies only {len(indices)} test images of "
            f"the digit {source} correctly"
        )
    return x[indices], indices


def choose(model, source, target, count, *, tol=1e-4):
    """The first `count` correctly classified test images for which an epsilon exists.

    One straight step does not reach the target from every image.  Test images are tried in
    order until there are enough that do; where all of them together do not hold enough, the
    first of the others fill up, with NaN for their epsilon.  The choice is remembered, so that two
    studies in one process make it once.
    Raises `Failure` when fewer than `count` test images are classified correctly.
    """
    weights = hashlib.sha256(b"".join(array.tobytes() for array in model.get_weights()))
    made = model.name, weights.digest(), source, target, count, tol
    if made not in _choices:
        _choices[made] = _choose(model, source, target, count, tol)
    return _choices[made]


_choices = {}


def _choose(model, source, target, count, tol):
    from method2_fgsm import fgsm

    x, indices = correctly_classified(model, source, count)
    eps = np.empty(0, np.float32)
    while len(eps) < len(x) and np.isfinite(eps).sum() < count:
        some = slice(len(eps), len(eps) + max(count, 20))
        targets = np.full(len(x[some]), target)
        eps = np.append(eps, fgsm.smallest_eps(model, x[some], targets, tol=tol)[0])
    if np.isfinite(eps).sum() >= count:
        # What was tried beyond the last image needed is not counted.
        eps = eps[: np.flatnonzero(np.isfinite(eps))[count - 1] + 1]
    chosen = np.argsort(np.isnan(eps), kind="stable")[:count]
    return Choice(x[chosen], indices[chosen], eps[chosen], len(eps), int(np.isfinite(eps).sum()))


def reach(choice, source, target):
    """One sentence: how many of the images tried can be turned into the target at all."""
    return (
        f"one step turns {choice.reachable} of the first {choice.tried} correctly classified "
        f"{source}s into a {target}"
    )
