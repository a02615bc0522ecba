"""The smallest epsilon that reaches a target, or any class but the label: by one step of the fast
gradient sign method, or by many steps; and what many steps do within a given epsilon.

One sign step is a straight line through the image.  The search walks along it from epsilon 0
upwards, and where it succeeds first, bisection finds the place.  Many steps
(frank_wolfe.py) leave the line and find far less.
"""

import numpy as np
import tensorflow as tf

from common.search import checks
from common.search.compiled import compiled
from common.search.margins import least, margin
from method2_fgsm import frank_wolfe
from method2_fgsm.fgsm import gradient_sign
from method2_fgsm.pgd import pgd

# Images at a time: as many as fit into so many bytes, and no more than so many.
BATCH_BYTES, MOST_IMAGES = 20_000_000, 1000


def smallest_eps(
    model,
    x,
    y,
    *,
    targeted=True,
    steps=1,
    max_eps=1.0,
    tol=1e-4,
    resolution=1e-3,
    confidence=0.0,
    batch_size=None,
):
    """The smallest eps with which noise of at most eps a pixel makes each image its target.

    With one step, the noise is that of the targeted, clipped sign step (Goodfellow et al. 2015,
    section 4).  The sign is taken once, at x.  Along
    x(eps) = clip(x - eps * sign(∇ₓ J(x, y))) the target may be reached, lost and reached
    again; the result is the first crossing.  Every eps on a grid from 0 to max_eps in steps of
    `resolution` is tried in ascending order, and the first grid step that ends at the target is
    bisected.  So a stretch of success that is narrower than `resolution` and lies between two
    grid points is missed.

    With more, it is any noise in the box: what the Frank-Wolfe steps of frank_wolfe.py find with
    that many gradients for each image, and never more than one step needs.

    Untargeted, y are the labels to leave, for whichever class is nearest; the one step then goes
    the other way, and many are shared out over the classes (common/search/nearest_class.py).

    x: float32 (n, ...) in [0, 1].  y: integers (n,).  steps: gradients for each image.
    tol: how far above the crossing the answer of one step may lie.  max_eps, tol and resolution
    are in pixel units.  confidence: the probability of the target has to be above this; with 0
    it only has to be the predicted class.
    batch_size: images at a time; None takes 1,000 digits, or 33 photographs of 224 x 224.
    Logits no further apart than they are rounded are a tie, and predict no class.
    Returns (eps, x_adv).  eps: float32 (n,), 0 where x is classified as its target already, or
    not as its label, NaN where no eps up to max_eps is enough.  x_adv: float32 like x, the
    adversarial images at exactly that eps, and x itself where there is none.
    Raises ValueError as `common/search/checks.py` says.
    """
    checks.positive("max_eps", max_eps)
    checks.pixel_size("max_eps", max_eps)
    checks.positive("tol", tol)
    checks.positive("resolution", resolution)
    if batch_size is not None:
        checks.positive("batch_size", batch_size, whole=True)
    if not 0 <= checks.number("confidence", confidence) < 1:
        raise ValueError(f"confidence must be at least 0 and below 1, not {confidence!r}")
    if confidence and not targeted:
        raise ValueError("confidence is that of a target: leave it out where there is none")
    x, y = checks.checked(model, x, y)
    if batch_size is None:
        batch_size = min(MOST_IMAGES, max(1, BATCH_BYTES // max(1, x[:1].nbytes)))
    checks.positive("steps", steps, whole=True)
    line_search = targeted, max_eps, tol, resolution, confidence, batch_size
    eps = np.empty(len(x), np.float32)
    x_adv = np.empty_like(x)
    for start in range(0, len(x), batch_size):
        batch = slice(start, start + batch_size)
        images = x[batch], y[batch]
        if steps == 1:
            found = _one_step(model, *images, *line_search)
        else:
            found = _many_steps(model, *images, steps, *line_search)
        eps[batch], x_adv[batch] = found
    return eps, x_adv


def within_eps(model, x, y, *, eps, steps, targeted=False, batch_size=1000):
    """What so many steps make of the images within eps: float32 like x.

    Away from the labels y, by projected sign steps (pgd.py).  Targeted, y are the labels to
    reach: the noise is then as small as `smallest_eps` finds it, and none where the target is out
    of reach.  The arguments are those of `fgsm.fgsm`; steps: at least 1.
    """
    if not targeted:
        return pgd(model, x, y, eps, steps=steps, batch_size=batch_size)
    if eps == 0:
        return x.copy()
    return smallest_eps(model, x, y, steps=steps, max_eps=eps, batch_size=batch_size)[1]


def _one_step(model, x, y, targeted, max_eps, tol, resolution, confidence, batch_size):
    """The first crossing on the line of the sign step, for one batch: (eps, x_adv).

    max_eps: how far along the line to look, for all images or for each (n,).
    """
    max_eps = np.broadcast_to(max_eps, len(x))
    points = int(np.ceil(max_eps.max() / resolution - 1e-9))
    grid = np.minimum(np.arange(points + 1) * resolution, max_eps.max()).astype(np.float32)
    sign = gradient_sign(model, x, y).numpy()
    checks.finite(sign, "logits or gradients")
    # Away from a label the step goes the other way, and success is that the label falls behind.
    way = np.float32(1 if targeted else -1)
    goal = tf.constant([way, confidence], tf.float32)
    sign *= way
    line = x, sign, y
    first = _first_on_grid(model, line, grid, max_eps, goal, batch_size)
    low = grid[np.maximum(first - 1, 0)]
    high = np.where(first >= 0, grid[first], np.float32(np.nan))
    eps = _bisect(model, line, low, high, tol, goal)
    distance = np.nan_to_num(eps).reshape(-1, *[1] * (x.ndim - 1))
    return eps, np.clip(x - distance * sign, 0, 1)


def _many_steps(model, x, y, steps, targeted, max_eps, tol, resolution, confidence, batch_size):
    """The smaller of what Frank-Wolfe steps and one sign step find, for one batch."""
    search = frank_wolfe.search if targeted else frank_wolfe.search_nearest
    limits = {"max_eps": max_eps, "confidence": confidence}
    size, x_adv = search(model, x, y, steps=steps, **limits)
    # One step can only matter where it needs less than that.
    line_search = targeted, np.minimum(size, max_eps), tol, resolution, confidence, batch_size
    eps, x_step = _one_step(model, x, y, *line_search)
    better = eps < size
    x_adv[better], size[better] = x_step[better], eps[better]
    missed = ~np.isfinite(size)
    x_adv[missed], size[missed] = x[missed], np.nan
    return size, x_adv


def _first_on_grid(model, line, grid, max_eps, goal, batch_size):
    """For each image the first place on the grid that succeeds, or -1: int (n,).

    An image leaves once the grid is past its max_eps (n,).
    """
    first = np.full(len(line[0]), -1)
    active = np.arange(len(first))
    tried = 0
    while len(active) and tried < len(grid):
        # The fewer images are left, the more epsilons of each fit into a batch.
        ahead = grid[tried : tried + max(1, batch_size // len(active))]
        x, sign, y = (part[active] for part in line)
        eps = np.tile(ahead, (len(active), 1))
        reached = _reached(model, x, sign, y, goal, eps).numpy()
        done = reached.any(axis=1)
        first[active[done]] = tried + reached[done].argmax(axis=1)
        active = active[~done & (ahead[-1] < max_eps[active])]
        tried += len(ahead)
    return first


def _bisect(model, line, low, high, tol, goal):
    """Move `high`, a place that succeeds, down to within tol of the crossing above `low`."""
    active = np.flatnonzero(high - low > tol)  # not where high is NaN
    while len(active):
        middle = (low[active] + high[active]) / 2
        # Below the spacing of float32 the middle is one of the ends, and the search is over.
        between = (low[active] < middle) & (middle < high[active])
        x, sign, y = (part[active] for part in line)
        reached = _reached(model, x, sign, y, goal, middle[:, np.newaxis])
        reached = reached.numpy()[:, 0]
        high[active[reached]] = middle[reached]
        low[active[~reached]] = middle[~reached]
        active = active[(high[active] - low[active] > tol) & between]
    return high


@compiled
def _reached(model, x, sign, y, goal, eps):
    """Whether clip(x - eps * sign) is classified as y: bool (n, k) for eps (n, k).

    goal: 1, or -1 for whether it is classified as anything but y; and the least confidence.
    """
    n, k = tf.shape(eps)[0], tf.shape(eps)[1]
    pixels = x.shape[1:]
    eps = tf.reshape(eps, [n, k] + [1] * len(pixels))
    moved = tf.clip_by_value(x[:, tf.newaxis] - eps * sign[:, tf.newaxis], 0, 1)
    logits = model(tf.reshape(moved, [n * k, *pixels]), training=False)
    logits = tf.cast(logits, x.dtype)
    y = tf.repeat(y, k)
    ahead = goal[0] * margin(logits, y) - least(model, logits)
    p = tf.gather(tf.nn.softmax(logits), y, axis=1, batch_dims=1)
    p = tf.where(goal[0] > 0, p, 1 - p)
    return tf.reshape((ahead > 0) & (p > goal[1]), [n, k])
