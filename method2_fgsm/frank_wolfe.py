"""The smallest L∞ noise that many steps find: Frank-Wolfe steps inside a box that shrinks.

The point p of the pixel cube nearest to the image x, in the largest change of a pixel, that is
classified as its target t, with logits z:

    minimise ε   subject to   |p - x|∞ ≤ ε,   0 ≤ p ≤ 1,   g(p) = z_t(p) - max_{k≠t} z_k(p) > 0

Within half-width ε the slope m of g leads furthest at a corner of the box,

    v = clip(x + ε sign(m), 0, 1)

which is the targeted sign step of `fgsm.py`, and for a linear classifier of two classes the
answer.  In a network the slope changes on the way.  So a step goes only the part s of the way to
the corner (Frank & Wolfe 1956; Chen et al. 2020, "A Frank-Wolfe Framework for Efficient and
Effective Adversarial Attacks"),

    m ← ρ m + (1 - ρ) ∇g(p) / |∇g(p)|₁        p ← (1 - s) p + s v

with s falling geometrically: most pixels end at the corner, and those whose slope changes its sign
from piece to piece of the network settle in between.  Half-width ε follows Pintor et al. 2021
("Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints", section 2): a hit
shrinks the box to a little less than the noise that hit, a miss lets it grow by as much, and that
little falls geometrically too.
"""

import numpy as np
import tensorflow as tf

from common.search import checks, margins, nearest_class
from common.search.compiled import compiled
from common.search.margins import per_image

# With this many steps or more, three starts have a fifth of them each, and the rest go on from the
# best of the three.  Fewer steps are better spent on one start.
MANY_STEPS = 250
MOMENTUM = 0.95  # ρ
# First and last value of s and of the factor by which the box shrinks or grows.
FIRST_RUN = (1.0, 0.01), (0.1, 1e-3)
SECOND_RUN = (0.3, 3e-3), (0.03, 2e-4)
STEPS_A_CALL = 10
# Without a target: the share of the steps that each of the rivals gets; the best one gets the rest.
SHARE = 0.03


def search(model, x, y_target, *, steps, max_eps=1.0, confidence=0.0):
    """The smallest noise found for one batch of images: (eps, x_adv), float32 (n,), infinite where
    the target was not reached, and float32 like x, the points at exactly that eps.

    y_target: int64 (n,).  The rest is that of `smallest_eps`.
    """
    # P_t > c means z_t - log Σ_{k≠t} exp z_k > log(c / (1 - c)).
    log_odds = np.log(confidence / (1 - confidence)) if confidence else -np.inf
    goal = tf.constant([log_odds, max_eps], tf.float32)
    needed = linear_estimate(model, x, y_target, goal).numpy()
    checks.finite(needed, "logits or gradients")
    # The same pattern for all images, so that their order and their batch do not matter.
    pattern = np.random.default_rng(0).uniform(-1, 1, x.shape[1:]).astype(np.float32)
    spread = 2 * needed.reshape(-1, *[1] * (x.ndim - 1)) * pattern
    starts = [(x, 2 * needed), (x, 5 * needed), (np.clip(x + spread, 0, 1), 2 * needed)]
    starts, each = (starts, steps // 5) if steps >= MANY_STEPS else (starts[:1], steps)
    size, best = np.full(len(x), np.inf, np.float32), x.copy()
    for p, eps in starts:
        size, best = shrink(model, x, y_target, p, eps, size, best, each, FIRST_RUN, goal)
    rest = steps - len(starts) * each
    if rest:
        eps = np.where(np.isfinite(size), size, needed)
        size, best = shrink(model, x, y_target, best, eps, size, best, rest, SECOND_RUN, goal)
    share, x_adv = pull(model, x, y_target, best, goal)
    return size * share.numpy(), x_adv.numpy()


def search_nearest(model, x, y, *, steps, **limits):
    """The smallest L∞ noise found that leaves the labels y (n,), as `search` returns it.

    steps: gradients for each image, shared out over the candidates of `nearest_class`.
    """

    def one_rival(goal, best, number, steps):
        eps, x_adv = search(model, x, goal, steps=steps, **limits)
        return x_adv, eps

    each = int(SHARE * steps)
    candidates = min(nearest_class.MOST, checks.count_classes(model, x) - 1)
    rounds = [(candidates, each)] if each else []
    rounds += [(1, steps - candidates * each)]
    x_adv, eps = nearest_class.nearest(model, x, y, one_rival, rounds, norm=np.inf)
    return eps, x_adv


@compiled
def linear_estimate(model, x, y_target, goal):
    """The eps with which x would reach its target, were g linear: (n,), at most 1."""
    g, slope = margin_and_slope(model, x, y_target, goal)
    # A pixel at its bound cannot follow a slope that leads out of the cube.
    free = tf.where(slope > 0, x < 1, x > 0)
    steepness = tf.reduce_sum(tf.abs(slope) * tf.cast(free, x.dtype), pixel_axes(x))
    return tf.clip_by_value(tf.math.divide_no_nan(-g, steepness), 1e-4, 1)


def shrink(model, x, y_target, p, eps, size, best, steps, schedule, goal):
    """`steps` steps from p in the box of half-width eps: the smallest hit so far, (size, best)."""
    p, eps, slope = tf.constant(p), tf.constant(eps), tf.zeros_like(p)
    (part, last_part), (change, last_change) = schedule
    done = np.linspace(0, 1, steps, dtype=np.float32)
    parts = part * (last_part / part) ** done
    changes = change * (last_change / change) ** done
    for first in range(0, steps, STEPS_A_CALL):
        call = slice(first, first + STEPS_A_CALL)
        p, slope, eps, size, best = steps_in_the_box(
            model, x, y_target, p, slope, eps, size, best, parts[call], changes[call], goal
        )
    return size.numpy(), best.numpy()


@compiled
def steps_in_the_box(model, x, y_target, p, m, eps, size, best, parts, changes, goal):
    """One step for each entry of `parts` (s) and `changes`; returns (p, m, eps, size, best)."""
    for i in tf.range(tf.shape(parts)[0]):
        g, slope = margin_and_slope(model, p, y_target, goal)
        noise = tf.reduce_max(tf.abs(p - x), pixel_axes(x))
        hit = g > 0
        smaller = hit & (noise < size)
        best = tf.where(per_image(smaller, x), p, best)
        size = tf.where(smaller, noise, size)
        eps = tf.where(hit, tf.minimum(eps, size) * (1 - changes[i]), eps * (1 + changes[i]))
        eps = tf.minimum(eps, tf.minimum(size * (1 - 1e-4), goal[1]))

        steepness = tf.reduce_sum(tf.abs(slope), pixel_axes(x))
        m = MOMENTUM * m + (1 - MOMENTUM) * tf.math.divide_no_nan(slope, per_image(steepness, x))
        low = tf.maximum(x - per_image(eps, x), 0)
        high = tf.minimum(x + per_image(eps, x), 1)
        corner = tf.where(m > 0, high, tf.where(m < 0, low, p))
        p = tf.clip_by_value(p + parts[i] * (corner - p), low, high)
    return p, m, eps, size, best


@compiled
def pull(model, x, y_target, x_adv, goal):
    """The hits x_adv, pulled back towards x while they stay hits."""
    return margins.pull(lambda p: margin_of(model, p, y_target, goal) > 0, x, x_adv, 10)


def margin_and_slope(model, p, y_target, goal):
    """g (n,) and ∇g, like p."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(p)
        g = margin_of(model, p, y_target, goal)
    return g, tape.gradient(g, p)


def margin_of(model, p, y_target, goal):
    """g (n,): the target's margin less what may be rounding, and its log-odds less the goal's.

    With a rival and a label for each image, y_target (n, 2): how far that one is ahead of this.
    """
    z = model(p, training=False)
    g = margins.margins(z, y_target)
    above = tf.reduce_min(g, axis=1) - tf.stop_gradient(margins.least(model, z))
    return tf.minimum(above, margins.log_odds(g) - goal[0])


def pixel_axes(x):
    """The axes of an image in a batch."""
    return list(range(1, len(x.shape)))
