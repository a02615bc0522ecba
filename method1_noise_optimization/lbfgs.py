"""The formulation of Szegedy et al. 2014 ("Intriguing properties of neural networks", section 4.1).

    minimise   c |r| + loss(x + r, t)   subject to   0 ≤ x + r ≤ 1

with the L2 norm and the cross entropy, by box-constrained L-BFGS, and a search for the largest c at
which the minimiser is still classified as t.  (The paper's "minimum c > 0", taken literally, is any
c close to zero, where the noise is largest; Carlini & Wagner 2017 weigh the loss instead.)

Pixels at a bound, whose gradient would push them out, are held; on the others the direction is that
of the two-loop recursion (Nocedal & Wright 2006, "Numerical Optimization", algorithm 7.4) over
their part of the last pairs; the step along it is clipped to the box and shortened until the
objective falls enough (Bertsekas 1982, "Projected Newton Methods for Optimization Problems with
Simple Constraints").
"""

import numpy as np
import tensorflow as tf

from common.search.compiled import compiled
from common.search.margins import is_hit, logits, spread

C_RANGE = (1e-3, 1e2)  # c is searched for between these, on a logarithmic scale
ROUNDS = 12  # halvings of that range: c is found to 0.3 %
MEMORY = 6  # pairs of steps and gradient changes
STEPS_A_CALL = 10
# |r| has no gradient at r = 0: it is rounded off there, far below one grey level.
KINK = 1e-3
# The logits of an image go into the cross entropy as if they lay so far apart, which is what those
# of our MLP do: the same network in other units has the same borders, and needs the same c.
SPREAD = 30.0


def find(model, x, y_target, max_steps, progress):
    """The noisy images of one batch and how many steps each took, over all values of c.

    x (n, d) float32 in [0, 1], y_target (n,) int64; at most max_steps steps for one c.  Returns
    x_adv (n, d) float32 and steps (n,) int64; where the target is not reached even at the
    smallest c, x_adv is what that led to.
    """
    low = np.full(len(x), C_RANGE[0], np.float32)
    high = np.full(len(x), C_RANGE[1], np.float32)
    scale = _scale(model, x).numpy()
    best, steps = minimise(model, x, y_target, x, low, scale, max_steps=max_steps)
    # An image that is classified as its target already needs no noise.
    done = is_hit(model, x, y_target).numpy()
    best[done] = x[done]
    size = np.linalg.norm(best - x, axis=1)
    rows = np.flatnonzero(~done & is_hit(model, best, y_target).numpy())
    for _ in range(ROUNDS):
        if not len(rows):
            break
        c = np.sqrt(low[rows] * high[rows])
        here = x[rows], y_target[rows], best[rows], c, scale[rows]
        x_adv, taken = minimise(model, *here, max_steps=max_steps)
        steps[rows] += taken
        hit = is_hit(model, x_adv, y_target[rows]).numpy()
        low[rows], high[rows] = np.where(hit, c, low[rows]), np.where(hit, high[rows], c)
        distance = np.linalg.norm(x_adv - x[rows], axis=1)
        nearer = hit & (distance < size[rows])
        best[rows[nearer]], size[rows[nearer]] = x_adv[nearer], distance[nearer]
        progress(len(x) / ROUNDS)
    return best, steps


@compiled
def _scale(model, x):
    """What the logits of the images x (n, d) are multiplied by: (n,)."""
    return SPREAD / spread(logits(model, x))


def minimise(model, x, y_target, start, c, scale, *, max_steps):
    """Minimise the objective over the box from `start` (n, d), one weight c (n,) an image.

    Returns the points reached (n, d) float32 and the steps each took (n,) int64.  A point is
    final when a step no longer lowers its objective (in float32), or after max_steps.
    """
    p, steps = start.copy(), np.zeros(len(x), np.int64)
    rows, pairs = np.arange(len(x)), (tf.zeros((len(x), MEMORY, x.shape[1])),) * 2
    while len(rows) and steps.max() < max_steps:
        count = min(STEPS_A_CALL, max_steps - steps.max())
        here = x[rows], y_target[rows], p[rows], c[rows], scale[rows]
        moved, pairs, taken, active = _steps(model, *here, *pairs, count)
        p[rows] = moved
        steps[rows] += taken.numpy()
        keep = np.flatnonzero(active.numpy())
        rows, pairs = rows[keep], tuple(tf.gather(pair, keep) for pair in pairs)
    return p, steps


@compiled
def _steps(model, x, target, p, c, scale, moves, changes, count):
    """`count` steps of projected L-BFGS; an image that is final stays where it is."""
    value, gradient = _value_and_gradient(model, x, target, p, c, scale)
    active = tf.ones_like(target, tf.bool)
    taken = tf.zeros_like(target)
    for _ in tf.range(count):
        free = ~(((p <= 0) & (gradient > 0)) | ((p >= 1) & (gradient < 0)))
        direction = _direction(tf.cast(free, p.dtype), gradient, moves, changes)

        # Armijo's condition along the projected path.
        length, enough = 3 * tf.ones_like(value), tf.zeros_like(active)
        new_p, new_value, new_gradient = p, value, gradient
        tries = 0
        while tries < 13 and tf.reduce_any(active & ~enough):
            tries += 1
            length = tf.where(enough, length, length / 3)
            new_p = tf.clip_by_value(p + length[:, tf.newaxis] * direction, 0, 1)
            new_value, new_gradient = _value_and_gradient(model, x, target, new_p, c, scale)
            fall = tf.reduce_sum(gradient * (new_p - p), axis=1)
            enough = new_value <= value + 1e-4 * fall

        active &= enough
        moved, still_falls = active[:, tf.newaxis], new_value < value
        step, change = (
            tf.where(moved, new - old, 0)[:, tf.newaxis]
            for new, old in ((new_p, p), (new_gradient, gradient))
        )
        moves = tf.concat([moves[:, 1:], step], axis=1)
        changes = tf.concat([changes[:, 1:], change], axis=1)
        taken += tf.cast(active, taken.dtype)
        p, gradient = tf.where(moved, new_p, p), tf.where(moved, new_gradient, gradient)
        value = tf.where(active, new_value, value)
        active &= still_falls
    return p, (moves, changes), taken, active


def _value_and_gradient(model, x, target, p, c, scale):
    """The objective c |p - x| + cross entropy at points p (n, d): (n,), and its gradient."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(p)
        size = tf.sqrt(tf.reduce_sum((p - x) ** 2, axis=1) + KINK**2)
        z = scale[:, tf.newaxis] * logits(model, p)
        value = c * size + tf.nn.sparse_softmax_cross_entropy_with_logits(target, z)
    return value, tape.gradient(value, p)


def _direction(free, gradient, moves, changes):
    """-H∇F on the free pixels, with H from the pairs: the two-loop recursion."""
    q = gradient = gradient * free
    moves, changes = moves * free[:, tf.newaxis], changes * free[:, tf.newaxis]
    curvature = tf.reduce_sum(moves * changes, axis=2)
    squares = tf.reduce_sum(changes * changes, axis=2)
    valid = curvature > 1e-6 * squares * KINK
    rho = tf.where(valid, 1 / tf.where(valid, curvature, 1), 0)
    ratio = curvature / tf.where(valid, squares, 1)
    alphas = {}
    for i in reversed(range(MEMORY)):
        alphas[i] = rho[:, i] * tf.reduce_sum(moves[:, i] * q, axis=1)
        q -= alphas[i][:, tf.newaxis] * changes[:, i]
    # H's first guess from the newest pair; without one, a step of a tenth.
    scale = 0.1 / tf.maximum(tf.norm(q, axis=1), 1e-12)
    for i in range(MEMORY):
        scale = tf.where(valid[:, i], ratio[:, i], scale)
    q *= scale[:, tf.newaxis]
    for i in range(MEMORY):
        beta = rho[:, i] * tf.reduce_sum(changes[:, i] * q, axis=1)
        q += (alphas[i] - beta)[:, tf.newaxis] * moves[:, i]
    q *= free
    downhill = tf.reduce_sum(q * gradient, axis=1) > 0
    tenth = 0.1 / tf.maximum(tf.norm(gradient, axis=1), 1e-12)
    return -tf.where(downhill[:, tf.newaxis], q, gradient * tenth[:, tf.newaxis])
