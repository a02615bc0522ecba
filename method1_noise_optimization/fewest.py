"""The fewest pixels that change the answer: sorting them by what they gain, on an averaged
linearisation.

    minimise |x' - x|₀   subject to   g(x') = z_t(x') - max_{k ≠ t} z_k(x') ≥ 0,   0 ≤ x' ≤ 1

where |r|₀ counts the pixels that change at all; one in colour is all its channels.  Were the margin
g linear, with the slope G, the best that pixel j can do is to go to the end v_j of its range:

    v_j = 1 where G_j > 0, else 0          it gains γ_j = G_j (v_j - x_j) ≥ 0

and the answer is exact: those that gain most, as many as it takes.  So linearise at the point
reached so far, and repeat: minimal.py in another norm, with sorting in the place of projecting.  G
is a running average of the gradients.  A step changes one pixel fewer than the best hit so far;
where there is none yet, some more than the step before.  Further starts go on from the best hit,
and multiply the gains by noise that fades.

In the end pixels are put back, the least useful first, while it stays a hit.  Such a greedy choice
by slopes is that of JSMA (Papernot et al. 2016, "The Limitations of Deep Learning in Adversarial
Settings"), which averages nothing and takes nothing back; σ-zero (Cinà et al. 2025, "σ-zero:
Gradient-based Optimization of ℓ0-norm Adversarial Examples") descends on Σ r² / (r² + σ) instead.
"""

import numpy as np
import tensorflow as tf

from common.search import nearest_class
from common.search.compiled import compiled
from common.search.margins import least, logits, margin, margins, spread

# Of the competitors of a target, as a share of the spread of the logits: first and last.
WARMEST, COLDEST = 0.25, 8e-4
# The weight of a new gradient beside m earlier ones is WINDOW / (m + WINDOW).
WINDOW = 10.0
# How many pixels a step changes: after a miss so many times as many, and no more than this share of
# the best hit.
MORE, FEWER = 1.15, 0.85
# Without a target, of each round: the share of the steps that a rival gets, how many rivals, and
# the noise on the logarithms of the gains.  With one, each round is a start.
ROUNDS = (1 / 3, 9, 0.0), (1, 3, 1.0), (1, 1, 1.0)


def find(model, x, y_target, max_steps, progress):
    """Hits of few pixels for one batch, and how many gradients each took.

    x (n, d) float32 in [0, 1], y_target (n,) int64; max_steps gradients for each of the starts.
    Returns x_adv (n, d) float32, x where no hit was found, and steps (n,) int64.
    """
    best = x.copy()
    for start, (_, _, noise) in enumerate(ROUNDS):
        how = (tf.constant(value) for value in (start, max_steps, noise))
        x_adv, size = _descend(model, x, best, y_target, *how)
        fewer = np.isfinite(size)
        best[fewer] = x_adv.numpy()[fewer]
        progress(len(x) / len(ROUNDS))
    best = _put_back(model, x, best, y_target, tf.constant(1.0)).numpy()
    return best, np.full(len(x), len(ROUNDS) * max_steps)


def find_nearest(model, x, y, max_steps, progress):
    """The same for any class but the labels y (n,): rivals as common/search/nearest_class.py takes
    them, fewer in each round."""
    most = min(nearest_class.MOST, model.output_shape[-1] - 1)
    rounds = [(min(most, rivals), max(1, int(share * max_steps))) for share, rivals, _ in ROUNDS]
    gradients = most + sum(rivals * steps for rivals, steps in rounds)

    def search(goal, best, number, steps):
        origin = best.reshape(x.shape) if number else x
        how = (tf.constant(value) for value in (number, steps, ROUNDS[number][2]))
        x_adv, size = _descend(model, x, origin, goal, *how)
        progress(len(x) * steps / gradients)
        return x_adv.numpy().reshape(best.shape), size.numpy()

    images = x.reshape(-1, *model.input_shape[1:])
    best, _ = nearest_class.nearest(model, images, y, search, rounds, norm=2)
    best = _put_back(model, x, best.reshape(x.shape), y, tf.constant(-1.0)).numpy()
    return best, np.full(len(x), gradients)


@compiled
def _descend(model, x, p, target, start, steps, noise):
    """One start, at p, which is x or the best so far: the hit that changes fewer pixels (n, d), and
    how many they are; x and infinity where there is none."""
    G, best, unit = tf.zeros_like(x), x, spread(logits(model, x))
    size = tf.fill(tf.shape(x)[:1], np.float32(np.inf))
    changed = _count(model, p != x)
    most = tf.where(changed > 0, changed - 1, size)
    k = tf.zeros_like(size)
    for i in tf.range(steps + 1):
        share = tf.cast(i, tf.float32) / tf.cast(steps, tf.float32)
        temperature = unit * WARMEST * (COLDEST / WARMEST) ** share
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(p)
            z = logits(model, p)
            g = margins(z, target)
            smooth = -temperature * tf.reduce_logsumexp(-g / temperature[:, tf.newaxis], axis=1)
        changed = _count(model, p != x)
        hit = (tf.reduce_min(g, axis=1) > least(model, z)) & (changed <= most)
        best, size = tf.where(hit[:, tf.newaxis], p, best), tf.where(hit, changed, size)
        most = tf.where(hit, tf.minimum(changed - 1, tf.math.ceil(FEWER * changed)), most)

        weight = WINDOW / (tf.cast(i, tf.float32) + WINDOW)
        G += weight * (tape.gradient(smooth, p) - G)
        v = tf.cast(G > 0, tf.float32)
        gains = _of_pixels(model, G * (v - x))
        if i == 0:
            gained = tf.cumsum(tf.sort(gains, direction="DESCENDING", axis=1), axis=1)
            missing = tf.reduce_sum(G * (p - x), axis=1) - smooth
            k = 1 + _sum(gained < missing[:, tf.newaxis])
        else:
            k *= MORE
        k = tf.minimum(k, most)
        # The same noise for all images, so that none depends on its place in the batch.
        drawn = tf.random.stateless_normal(tf.shape(gains)[1:], seed=tf.stack([start, i]))
        gains *= tf.exp(noise * (1 - share) * drawn)
        chosen = _largest(gains, tf.cast(tf.math.ceil(k), tf.int32)) & (gains > 0)
        p = tf.where(_of_channels(model, chosen), v, x)
    return best, size


def _largest(values, k):
    """Which are the k (n,) largest values (n, pixels) of each row, of equal ones the first."""
    most = tf.clip_by_value(tf.reduce_max(k), 0, tf.shape(values)[1])
    places = tf.math.top_k(values, most)[1]
    rows = tf.repeat(tf.range(tf.shape(values)[0])[:, tf.newaxis], most, axis=1)
    counted = tf.cast(tf.range(most) < k[:, tf.newaxis], tf.int32)
    return tf.scatter_nd(tf.stack([rows, places], axis=2), counted, tf.shape(values)) > 0


@compiled
def _put_back(model, x, x_adv, y, way):
    """The hits x_adv (n, d) with pixels put back until none can be.

    way: 1 where a hit is what is classified as y (n,), -1 where it is what is not.
    """

    def ahead(p):
        z = logits(model, p)
        return way * margin(z, y) - least(model, z)

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x_adv)
        g = ahead(x_adv)
    changed = _of_pixels(model, tf.cast(x_adv != x, tf.float32)) > 0
    use = _of_pixels(model, tape.gradient(g, x_adv) * (x_adv - x))
    order = tf.argsort(tf.where(changed, use, np.inf), axis=1)
    most, going = tf.cast(tf.reduce_max(_sum(changed)), tf.int32), tf.constant(True)
    while going:
        before = x_adv
        for place in tf.range(most):
            put = tf.one_hot(order[:, place], order.shape[1], on_value=True, off_value=False)
            fewer = tf.where(_of_channels(model, put), x, x_adv)
            x_adv = tf.where((ahead(fewer) > 0)[:, tf.newaxis], fewer, x_adv)
        going = tf.reduce_any(x_adv != before)
    return x_adv


def _channels(model):
    return model.input_shape[-1] if len(model.input_shape) == 4 else 1


def _of_pixels(model, values):
    """Sums over the channels of each pixel: (n, pixels) of (n, d)."""
    channels = _channels(model)
    return tf.reduce_sum(tf.reshape(values, [-1, values.shape[1] // channels, channels]), axis=2)


def _of_channels(model, pixels):
    """What holds of each pixel (n, pixels), for its channels: (n, d)."""
    return tf.repeat(pixels, _channels(model), axis=1)


def _sum(of):
    return tf.reduce_sum(tf.cast(of, tf.float32), axis=1)


def _count(model, changed):
    """How many pixels have changed, (n,), where values (n, d) have."""
    return _sum(_of_pixels(model, tf.cast(changed, tf.float32)) > 0)
