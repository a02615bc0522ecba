"""The fewest pixels that change the answer: sorting them by what they gain, on an averaged
linearisation.

    minimise |x' - x|₀   subject to   g(x') = z_t(x') - max_{k ≠ t} z_k(x') ≥ 0,   0 ≤ x' ≤ 1

where |r|₀ counts the pixels that change; one in colour is all its channels.  Were the margin g
linear, with the slope G, the best that pixel j can do is to go to the end v_j of its range,

    v_j = 1 where G_j > 0, else 0          which gains γ_j = G_j (v_j - x_j) ≥ 0

and the answer is exact: those that gain most, as many as it takes.  So linearise at the point
reached so far, and repeat, as minimal.py does with projections: G is a running average of the
gradients, and g's maximum is smoothed.  A step changes one pixel fewer than the best hit; before
there is one, some more than the step before.  Further starts go on from the best hit, and multiply
the gains by noise that fades.  In the end pixels are put back while it stays a hit.

JSMA (Papernot et al. 2016, "The Limitations of Deep Learning in Adversarial Settings") chooses
pixels by their slopes too, but takes none back; σ-zero (Cinà et al. 2025, "σ-zero: Gradient-based
Optimization of ℓ0-norm Adversarial Examples") descends on the margin and Σ r² / (r² + σ) instead.
"""

import numpy as np
import tensorflow as tf

from common.search import nearest_class
from common.search.compiled import compiled
from common.search.margins import least, logits, spread
from method1_noise_optimization.minimal import hit_and_slope

# As in minimal.py: the first and last temperature, and the weight of a new gradient.
WARMEST, COLDEST, WINDOW = 0.25, 8e-4, 10.0
# How many pixels a step changes: before the first hit so many times as many as the one before, to
# the power of the step, and never more than this share of the best hit.
MORE, FEWER = 1.15, 0.85
# Without a target, of each round: the share of the steps that a rival gets, how many rivals, and
# the noise on the logarithms of the gains.  With one, each round is a start.
ROUNDS = (1 / 3, 9, 0.0), (1, 3, 1.0), (1, 1, 1.0)


def find(model, x, y_target, max_steps, progress):
    """Hits of few pixels for one batch, and how many gradients each took.

    x (n, d) float32 in [0, 1], y_target (n,) int64; max_steps gradients for each of the starts.
    Returns x_adv (n, d) float32, x where no hit was found, and steps (n,) int64.
    """
    x = by_pixel(model, x)
    best = x.copy()
    for start, (_, _, noise) in enumerate(ROUNDS):
        x_adv, size = _descend(model, x, best, y_target, start, max_steps, noise)
        best = np.where(np.isfinite(size)[:, np.newaxis, np.newaxis], x_adv, best)
        progress(len(x) / len(ROUNDS))
    x_adv = _put_back(model, x, best, y_target, 1.0).numpy()
    return x_adv.reshape(len(x), -1), np.full(len(x), len(ROUNDS) * max_steps)


def find_nearest(model, x, y, max_steps, progress):
    """The same for any class but the labels y, (n,) or (n, m): rivals as
    common/search/nearest_class.py takes them, fewer in each round."""
    most = min(nearest_class.MOST, model.output_shape[-1] - y[0].size)
    rounds = [(min(most, rivals), max(1, int(share * max_steps))) for share, rivals, _ in ROUNDS]
    gradients = most + sum(rivals * steps for rivals, steps in rounds)
    x = by_pixel(model, x)

    def search(goal, best, number, steps):
        origin = best.reshape(x.shape) if number else x
        x_adv, size = _descend(model, x, origin, goal, number, steps, ROUNDS[number][2])
        progress(len(x) * steps / gradients)
        return x_adv.numpy().reshape(best.shape), size.numpy()

    images = x.reshape(-1, *model.input_shape[1:])
    best, _ = nearest_class.nearest(model, images, y, search, rounds, norm=2)
    x_adv = _put_back(model, x, best.reshape(x.shape), y, -1.0).numpy()
    return x_adv.reshape(len(x), -1), np.full(len(x), gradients)


def by_pixel(model, x):
    """Images or noise of a model, (n, ...), as (n, pixels, channels)."""
    return x.reshape(len(x), -1, *(model.input_shape[3:] or (1,)))


def _count(pixels):
    return tf.reduce_sum(tf.cast(pixels, tf.float32), axis=1)


@compiled
def _descend(model, x, p, target, start, steps, noise):
    """One start, at p, which is x or the best so far: the hit that changes fewer pixels, like x
    (n, pixels, channels), and how many they are; x and infinity where there is none."""
    G, best, unit = tf.zeros_like(x), x, spread(logits(model, x))
    size = tf.fill(tf.shape(x)[:1], np.float32(np.inf))
    count = _count(tf.reduce_any(p != x, axis=2))
    most, k = tf.where(count > 0, count - 1, size), size
    for i in tf.range(steps):
        share = tf.cast(i, tf.float32) / tf.cast(steps, tf.float32)
        temperature = unit * WARMEST * (COLDEST / WARMEST) ** share
        hit, smooth, gradient = hit_and_slope(model, p, target, temperature)
        count = _count(tf.reduce_any(p != x, axis=2))
        hit &= count <= most
        best, size = tf.where(hit[:, tf.newaxis, tf.newaxis], p, best), tf.where(hit, count, size)
        most = tf.where(hit, tf.minimum(count - 1, tf.math.ceil(FEWER * count)), most)

        weight = WINDOW / (tf.cast(i, tf.float32) + WINDOW)
        G += weight * (gradient - G)
        v = tf.cast(G > 0, tf.float32)
        gains = tf.reduce_sum(G * (v - x), axis=2)
        if i == 0:
            gained = tf.cumsum(tf.sort(gains, direction="DESCENDING", axis=1), axis=1)
            missing = tf.reduce_sum(G * (p - x), axis=[1, 2]) - smooth
            k = 1 + _count(gained < missing[:, tf.newaxis])
        else:
            # Without a hit ever more: on photographs the first slopes promise far too much.
            k = tf.minimum(k * MORE ** tf.cast(i, tf.float32), float(gains.shape[1]))
        k = tf.minimum(k, most)
        # The same noise for all images, so that none depends on its place in the batch.
        drawn = tf.random.stateless_normal(tf.shape(gains)[1:], seed=tf.stack([start, i]))
        chosen = _largest(gains * tf.exp(noise * (1 - share) * drawn), tf.math.ceil(k))
        p = tf.where(chosen[..., tf.newaxis], v, x)
    return best, size


def _largest(gains, k):
    """Which of the gains (n, pixels) are above 0 and the k (n,) largest of an image: bool."""
    k = tf.clip_by_value(tf.cast(k, tf.int32), 0, tf.shape(gains)[1])
    largest = tf.math.top_k(gains, tf.maximum(tf.reduce_max(k), 1))[0]
    weakest = tf.gather(largest, tf.maximum(k[:, tf.newaxis] - 1, 0), axis=1, batch_dims=1)
    return (gains > 0) & (gains >= weakest) & (k[:, tf.newaxis] > 0)


@compiled
def _put_back(model, x, x_adv, y, way):
    """The hits x_adv (n, pixels, channels) with pixels put back until none can be.

    way: 1 where a hit is what is classified as one of y, (n,) or (n, m); -1 where as none of them.
    """

    labels = y if y.shape.rank == 2 else y[:, tf.newaxis]
    classes = tf.range(model.output_shape[-1], dtype=y.dtype)
    chosen = tf.reduce_any(labels[..., tf.newaxis] == classes, axis=1)

    def ahead(p):
        z = logits(model, p)
        best, others = (tf.where(part, z, z.dtype.min) for part in (chosen, ~chosen))
        g = tf.reduce_max(best, axis=1) - tf.reduce_max(others, axis=1)
        return way * g - least(model, z)

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x_adv)
        g = ahead(x_adv)
    use = tf.reduce_sum(tape.gradient(g, x_adv) * (x_adv - x), axis=2)
    changed = tf.reduce_any(x_adv != x, axis=2)
    order = tf.argsort(tf.where(changed, use, np.inf), axis=1)
    most, going = tf.cast(tf.reduce_max(_count(changed)), tf.int32), tf.constant(True)
    while going:
        before = x_adv
        for place in tf.range(most):
            put = tf.one_hot(order[:, place], order.shape[1], on_value=True, off_value=False)
            fewer = tf.where(put[..., tf.newaxis], x, x_adv)
            hit = ahead(fewer) > 0
            x_adv = tf.where(hit[:, tf.newaxis, tf.newaxis], fewer, x_adv)
        going = tf.reduce_any(x_adv != before)
    return x_adv
