"""Nine attacks on a network within epsilon, and what it withstands of all of them, image by image.

An attack is a function (model, x, y, eps, seed) -> x_adv, with an eps for each image, (n,).  Each
says what some attacker can do, none what no attacker can: a network is worth what it withstands
under all of them.

Some follow the network's own gradient, others never look at it and have less to go by.  Where those
find more, the gradient leads astray, and the first kind says little about the network (Athalye,
Carlini & Wagner 2018, "Obfuscated Gradients Give a False Sense of Security", section 3.1).
"""

import functools

import numpy as np

from common.command import Failure
from common.networks import mnist
from common.search.random_numbers import generators
from method2_fgsm.fgsm import fgsm
from method2_fgsm.pgd import pgd
from method2_fgsm.robust.square import square
from method2_fgsm.smallest_eps import smallest_eps

STEPS = 40  # projected ones
STARTS = 2
TARGETS = 9  # the likeliest
SMALLEST_STEPS = 100
QUERIES = 1000
DRAWS = 20  # of random noise

SIGN_STEP, MANY_STEPS = "sign step", "smallest epsilon, many steps"
# All but the search for the smallest epsilon, by the images that fall in a second.
ORDER = SIGN_STEP, "sign step, transferred", "random noise", "projected steps, margin"
ORDER += "projected steps, cross entropy", "projected steps, transferred", "random squares"
ORDER += ("projected steps, each other class",)
# Without the gradient, but with many looks at the network or another: more than one step may do.
MANY_LOOKS = "projected steps, transferred", "random squares"


def attacks(source):
    """The attacks by name, in two dicts: (with the gradient, without it).

    source: the network from which examples are transferred; None where there is none.
    """
    with_gradient = {
        SIGN_STEP: lambda model, x, y, eps, seed: fgsm(model, x, y, eps),
        "projected steps, cross entropy": functools.partial(projected, loss="cross entropy"),
        "projected steps, margin": functools.partial(projected, loss="margin"),
        "projected steps, each other class": each_target,
        MANY_STEPS: many_steps,
    }
    transferred = {
        "sign step, transferred": lambda model, x, y, eps, seed: fgsm(source, x, y, eps),
        "projected steps, transferred": lambda model, x, y, eps, seed: pgd(
            source, x, y, eps, steps=STEPS, seed=seed
        ),
    }
    return with_gradient, ({} if source is None else transferred) | {
        "random squares": lambda model, x, y, eps, seed: square(
            model, x, y, eps, queries=QUERIES, seed=seed
        ),
        "random noise": random_noise,
    }


def projected(model, x, y, eps, seed, *, loss):
    """Projected gradient descent from several random starts."""

    def from_start(rows, start):
        return pgd(model, x[rows], y[rows], eps[rows], steps=STEPS, loss=loss, seed=start)

    return first_hit(model, x, y, from_start, range(STARTS * seed, STARTS * (seed + 1)))


def each_target(model, x, y, eps, seed):
    """Projected steps towards each of the likeliest other classes, the likeliest first."""
    settings = {"steps": STEPS, "loss": "margin", "seed": seed}

    def towards(rows, target):
        return pgd(model, x[rows], y[rows], eps[rows], y_target=target[rows], **settings)

    return first_hit(model, x, y, towards, ranked(model, x, y)[:, :TARGETS].T)


def many_steps(model, x, y, eps, seed):
    """What `smallest` finds, where no more than eps is needed; elsewhere x."""
    x_adv, size = smallest(model, x, y)
    return np.where((size <= eps).reshape(-1, *[1] * (x.ndim - 1)), x_adv, x)


def random_noise(model, x, y, eps, seed):
    """Random corners of the box: every pixel eps up or down."""
    rngs = generators(x, seed)

    def corner(rows, _):
        up = np.stack([rngs[row].random(x.shape[1:], np.float32) for row in rows]) < 0.5
        size = eps[rows].reshape(-1, *[1] * (x.ndim - 1))
        return np.clip(x[rows] + np.where(up, size, -size), 0, 1)

    return first_hit(model, x, y, corner, range(DRAWS))


def first_hit(model, x, y, attempt, tries):
    """attempt(rows, try), one try after the other, each on the rows of the images that are still
    classified as y: x_adv, like x."""
    x_adv = x.copy()
    rows = np.flatnonzero(mnist.classify(model, x) == y)
    for each in tries:
        if not len(rows):
            break
        x_adv[rows] = attempt(rows, each)
        rows = rows[mnist.classify(model, x_adv[rows]) == y[rows]]
    return x_adv


def ranked(model, x, y):
    """The classes other than y, those with the largest logits first: int64 (n, classes - 1)."""
    logits = mnist.predict(model, x)
    logits[np.arange(len(x)), y] = np.inf
    return np.argsort(-logits, axis=1)[:, 1:]


def withstood(model, x, y, eps, attack, *, judge=None, seed=0):
    """Which images are classified as y before one attack on the model and after it: bool (n,).

    eps: a number, or one for each image, (n,).  judge: the network that classifies them, if it is
    not the one that is attacked.
    """
    judge, eps = judge or model, np.broadcast_to(eps, len(x))
    stands, size = mnist.classify(judge, x) == y, mnist.at_a_time(x)
    right = np.flatnonzero(stands)
    for start in range(0, len(right), size):
        rows = right[start : start + size]
        x_adv = attack(model, x[rows], y[rows], eps[rows], seed)
        stands[rows] = mnist.classify(judge, x_adv) == y[rows]
    return stands


def withstood_all(model, x, y, eps, attacks, *, judge=None, seed=0):
    """Which images withstand every one of `attacks`, each tried on what the others left: (n,)."""
    standing, eps = mnist.classify(judge or model, x) == y, np.broadcast_to(eps, len(x))
    for attack in attacks:
        if standing.any():
            left = x[standing], y[standing], eps[standing]
            standing[standing] = withstood(model, *left, attack, judge=judge, seed=seed)
    return standing


def smallest(model, x, y, *, judge=None):
    """The smallest eps that many steps find, without a limit: (x_adv like x, eps (n,)).

    0 where an image is not classified as y, infinite where none is found.
    """
    size, x_adv = smallest_eps(model, x, y, targeted=False, steps=SMALLEST_STEPS)
    hit = mnist.classify(judge or model, x_adv) != y
    return x_adv, np.where(hit & np.isfinite(size), size, np.inf)


def withstood_along(model, source, x, y, eps, *, falls, stands=0, judge=None, seed=0):
    """Which images withstand all attacks at each eps (k,), ascending and the first one 0: (k, n).

    falls: an epsilon at which each image is known to fall, (n,), as `smallest` finds it; stands:
    one at which it is known to withstand all.  What fools a network within an epsilon lies within
    every larger one too: so each image is attacked at the largest eps that is open, at the next
    smaller one if it falls, and no more once it stands.  source: as in `attacks`.  judge: as in
    `withstood`.
    """
    named = {name: attack for kind in attacks(source) for name, attack in kind.items()}
    every = [named[name] for name in ORDER if name in named]
    eps, right = np.asarray(eps), mnist.classify(judge or model, x) == y
    high = np.where(right, np.searchsorted(eps, falls), 0)
    low = np.where(right, np.searchsorted(eps, stands, side="right"), 0) - 1
    while (undecided := high - low > 1).any():
        rows, tried = np.flatnonzero(undecided), high[undecided] - 1
        part = x[rows], y[rows], eps[tried], every
        stood = withstood_all(model, *part, judge=judge, seed=seed)
        low[rows[stood]], high[rows[~stood]] = tried[stood], tried[~stood]
    return low >= np.arange(len(eps))[:, np.newaxis]


def sign_step_curve(model, x, y, eps, *, judge=None):
    """The share of the images that withstand the sign step at each eps (k,): float64 (k,)."""
    sign_step = attacks(None)[0][SIGN_STEP]
    return np.array([withstood(model, x, y, size, sign_step, judge=judge).mean() for size in eps])


def check_proof(proven_eps, broken_eps):
    """Raise `Failure` for an image that is proven up to an epsilon at which an attack succeeds."""
    for image in np.flatnonzero(proven_eps >= broken_eps):
        raise Failure(
            f"image {image}: an attack succeeds at eps {broken_eps[image]:g}, though "
            f"{proven_eps[image]:g} is proven: method2_fgsm/robust/bounds.py or the attack is wrong"
        )


def masked(with_gradient, without):
    """A line for each attack that fools more images without the gradient than another with it.

    Both are dicts by name of which images are left, bool (n,).  The sign step looks once, so it is
    set beside those alone that do the same.  What two equally good attacks may differ by, two
    standard deviations, is not named (McNemar 1947).
    """
    lines = []
    for free, left in without.items():
        for attack, other in with_gradient.items():
            ahead = other.sum() - left.sum()
            chance = 2 * (left != other).sum() ** 0.5
            if ahead > chance and not (attack == SIGN_STEP and free in MANY_LOOKS):
                lines.append(
                    f"{free} leaves {left.mean():.1%}, {attack} {other.mean():.1%}: the gradient "
                    f"misleads on {ahead} of {len(left)} images"
                )
    return lines
