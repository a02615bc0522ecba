"""Which digits `epsilon.py` and `two_to_six.py` draw: those of one digit that the model can
be made to see as another.

The two scripts share their command line and their choice of images, so that both show the same.
"""

from typing import NamedTuple

import numpy as np

from common import command, data, files, models


class Choice(NamedTuple):
    """Images of one digit and the smallest epsilon that turns each into the target.

    x: float32 (count, 28, 28).  indices: int64 (count,), places in the test set or sample file.
    eps: float32 (count,), pixel units, NaN where no epsilon is enough.  tried: float32
    (n, 28, 28), all correctly classified images that were tried; rows: which of them x are;
    reachable: for how many of them some epsilon is enough.  kind: what to call an image.
    """

    x: np.ndarray
    indices: np.ndarray
    eps: np.ndarray
    tried: np.ndarray
    rows: np.ndarray
    reachable: int
    kind: str


def parse(parser, argv):
    """The command line, with --model, --source, --target, --count, --steps and --samples."""
    models.add_model(parser, "softmax")
    parser.add_argument("--source", type=command.digit, default=2, help="the digit it is")
    parser.add_argument("--target", type=command.digit, default=6, help="the digit to be seen")
    command.add_count(parser, "--count", "how many images", 10)
    parser.add_argument(
        "--steps",
        type=command.positive_int,
        default=1,
        help="1: the sign step; more: the smallest epsilon that so many steps find (500, say)",
    )
    parser.add_argument(
        "--samples",
        type=command.path,
        help="a file of digits, such as my_digits.py writes, which may hold fewer than COUNT "
        "(default: the test set)",
    )
    args = parser.parse_args(argv)
    if args.source == args.target:
        parser.error(f"--source and --target are both {args.source}: choose two digits")
    return args


def images_of(model, source, count, samples=None):
    """The test images of a digit that the model gets right: (x, indices), in test set order.

    samples: a sample file to take instead of the test set.  Raises `Failure` when the test set
    holds fewer than `count` or the sample file none.
    """
    if samples is None:
        where, (x, y) = "the test set", data.load("test")
    else:
        where, (x, y, _) = files.show(samples), data.load_samples(samples)
    least = count if samples is None else 1
    indices = models.correctly_classified([model], x, y, where, source=source, count=least)
    return x[indices], indices


def choose(model, source, target, count, samples=None):
    """The first `count` test images that the model gets right and one step turns: a `Choice`.

    One straight step does not reach the target from every image.  Test images are tried in
    order until `count` of them reach it.  If all together hold fewer, the first of the others
    fill up the choice, with NaN as their epsilon.  Raises `Failure` as `images_of` does.
    """
    from method2_fgsm.smallest_eps import smallest_eps

    x, indices = images_of(model, source, count, samples)
    eps = np.empty(0, np.float32)
    while len(eps) < len(x) and np.isfinite(eps).sum() < count:
        batch = x[len(eps) : len(eps) + max(count, 20)]
        eps = np.append(eps, smallest_eps(model, batch, np.full(len(batch), target))[0])
    if np.isfinite(eps).sum() >= count:
        # What was tried after the last image needed is not counted.
        eps = eps[: np.flatnonzero(np.isfinite(eps))[count - 1] + 1]
    rows = np.argsort(np.isnan(eps), kind="stable")[:count]
    reachable = int(np.isfinite(eps).sum())
    kind = "test image" if samples is None else "image"
    return Choice(x[rows], indices[rows], eps[rows], x[: len(eps)], rows, reachable, kind)


def reach(choice, source, target):
    """One sentence: how many of the images tried can be turned into the target at all."""
    return (
        f"one step turns {choice.reachable} of the first {len(choice.tried)} correctly classified "
        f"{source}s into a {target}"
    )
