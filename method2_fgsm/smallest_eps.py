"""The smallest epsilon that reaches a target, or any class but the label: by one step of the fast
gradient sign method, or by many steps.

One sign step is a straight line through the image, x(eps) = clip(x - eps * sign(∇ₓ J(x, y))), along
which a target may be reached, lost and reached again.  The search walks along a grid from epsilon 0
upwards, and where it succeeds first, bisection finds the crossing; success that lies between two
grid points is missed.  Many steps (frank_wolfe.py) leave the line and find far less.
"""

import numpy as np
import tensorflow as tf

from common.networks import mnist
from common.search import checks
from common.search.compiled import compiled
from common.search.margins import least, margin
from method2_fgsm import frank_wolfe
from method2_fgsm.fgsm import gradient_sign

# In pixel units: the grid, and how far above the crossing the answer of one step may lie.
RESOLUTION, TOLERANCE = 1e-3, 1e-4


def smallest_eps(
    model, x, y, *, targeted=True, steps=1, max_eps=1.0, confidence=0.0, batch_size=None
):
    """The smallest eps with which noise of at most eps a pixel makes each image its target.

    With one step, the noise is that of the targeted, clipped sign step (Goodfellow et al. 2015,
    section 4), whose sign is taken once, at x.  With more, it is any noise in the box: what the
    Frank-Wolfe steps find with that many gradients, and never more than one step needs.
    Untargeted, y are the labels to leave, for whichever class is nearest; the one step then goes
    the other way, and many are shared out over the classes (common/search/nearest_class.py).

    x: float32 (n, ...) in [0, 1].  y: integers (n,).  steps: gradients for each image.
    max_eps: in pixel units.  confidence: the probability of the target has to be above this; with
    0 it only has to be the predicted class, by more than its logits are rounded.
    batch_size: images at a time; None takes 1,000 digits, or 33 photographs of 224 x 224.
    Returns (eps, x_adv).  eps: float32 (n,), 0 where x is classified as its target already, or
    not as its label, NaN where no eps up to max_eps is enough.  x_adv: float32 like x, the
    adversarial images at exactly that eps, and x itself where there is none.
    Raises ValueError as `common/search/checks.py` says.
    """
    checks.positive("max_eps", max_eps)
    checks.pixel_size("max_eps", max_eps)
    checks.positive("steps", steps, whole=True)
    if batch_size is not None:
        checks.positive("batch_size", batch_size, whole=True)
    if not 0 <= checks.number("confidence", confidence) < 1:
        raise ValueError(f"confidence must be at least 0 and below 1, not {confidence!r}")
    if confidence and not targeted:
        raise ValueError("confidence is that of a target: leave it out where there is none")
    x, y = checks.checked(model, x, y)
    batch_size = batch_size or min(1000, mnist.at_a_time(x))
    many_steps = frank_wolfe.search if targeted else frank_wolfe.search_nearest
    smallest, x_adv = np.full(len(x), np.nan, np.float32), x.copy()
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        size, found = np.full(len(x[rows]), np.inf), x[rows].copy()
        if steps > 1:
            limits = {"max_eps": max_eps, "confidence": confidence}
            size, found = many_steps(model, x[rows], y[rows], steps=steps, **limits)
        # One step can only matter where it needs less than that.
        eps, x_step = _one_step(
            model, x[rows], y[rows], targeted, np.minimum(size, max_eps), confidence, batch_size
        )
        better = eps < size
        size[better], found[better] = eps[better], x_step[better]
        hit = np.isfinite(size)
        smallest[rows][hit], x_adv[rows][hit] = size[hit], found[hit]
    return smallest, x_adv


def within_eps(model, x, y, eps, *, steps, targeted=True, batch_size=None):
    """x_adv of `smallest_eps` where no more than eps is needed, which may be 0; elsewhere x."""
    if eps == 0:
        return x.copy()
    limits = {"max_eps": eps, "batch_size": batch_size}
    return smallest_eps(model, x, y, targeted=targeted, steps=steps, **limits)[1]


def _one_step(model, x, y, targeted, max_eps, confidence, batch_size):
    """The first crossing on the line of the sign step, for one batch: (eps, x_adv).

    max_eps: how far along the line to look, for each image (n,).
    """
    points = int(np.ceil(max_eps.max() / RESOLUTION - 1e-9))
    grid = np.minimum(np.arange(points + 1) * RESOLUTION, max_eps.max()).astype(np.float32)
    sign = gradient_sign(model, x, y).numpy()
    checks.finite(sign, "logits or gradients")
    # Away from a label the step goes the other way, and success is that the label falls behind.
    way = np.float32(1 if targeted else -1)
    goal = tf.constant([way, confidence], tf.float32)
    sign *= way

    def reached(rows, eps):
        return _reached(model, x[rows], sign[rows], y[rows], goal, eps).numpy()

    first = _first_on_grid(reached, grid, max_eps, batch_size)
    low = grid[np.maximum(first - 1, 0)]
    high = np.where(first >= 0, grid[first], np.float32(np.nan))
    eps = _bisect(reached, low, high)
    distance = np.nan_to_num(eps).reshape(-1, *[1] * (x.ndim - 1))
    return eps, np.clip(x - distance * sign, 0, 1)


def _first_on_grid(reached, grid, max_eps, batch_size):
    """For each image the first index of the grid that succeeds, or -1: int (n,).

    reached(rows, eps (k, e)) -> bool (k, e).  An image leaves once the grid is past its max_eps.
    """
    first = np.full(len(max_eps), -1)
    active, tried = np.arange(len(first)), 0
    while len(active) and tried < len(grid):
        # The fewer images are left, the more epsilons of each fit into a batch.
        ahead = grid[tried : tried + max(1, batch_size // len(active))]
        hits = reached(active, np.tile(ahead, (len(active), 1)))
        done = hits.any(axis=1)
        first[active[done]] = tried + hits[done].argmax(axis=1)
        active = active[~done & (ahead[-1] < max_eps[active])]
        tried += len(ahead)
    return first


def _bisect(reached, low, high):
    """Move `high`, an eps that succeeds, down to the crossing above `low`, or nearly so."""
    active = np.flatnonzero(high - low > TOLERANCE)  # not where high is NaN
    while len(active):
        middle = (low[active] + high[active]) / 2
        hits = reached(active, middle[:, np.newaxis])[:, 0]
        high[active[hits]] = middle[hits]
        low[active[~hits]] = middle[~hits]
        active = active[high[active] - low[active] > TOLERANCE]
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
