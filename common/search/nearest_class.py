"""The nearest wrong answer: which of the other classes has its border nearest to an image.

The region of all classes but the label y is the union of the half spaces z_k > z_y, were the logits
z linear, and its point nearest to x lies on the border of one of them alone.  So the search is for
one rival k at a time: the candidates in the order of their linearised borders (Moosavi-Dezfooli et
al. 2016, "DeepFool"), then in that of what was found for them.
"""

import numpy as np
import tensorflow as tf

from common.search.compiled import compiled

# Candidates at most, so that a thousand classes cost no more than ten.
MOST = 9


def nearest(model, x, y, search, rounds, *, norm):
    """The nearest of what searches for single rivals find, for one batch.

    x: float32 (n, ...) in [0, 1].  y: int64 (n,) or (n, m) labels to leave.
    search(goal, best, number, steps) -> (x_adv, size): a search, given the rivals and labels
    (n, 1 + m), the nearest points so far and the number of the round; size (n,) is infinite where
    the rival did not get ahead.
    rounds: of each round how many rivals are looked at, and with how many steps.
    norm: of the noise, 2 or infinity.
    Returns (x_adv, size) of the nearest; where none was found, x_adv is x and size infinite.
    """
    order = by_border(model, x, y, tf.constant(2.0 if norm == 2 else 1.0)).numpy().astype(y.dtype)
    sizes = np.full(order.shape, np.inf, np.float32)
    best, size = x.copy(), np.full(len(x), np.inf, np.float32)
    for number, (count, steps) in enumerate(rounds):
        for rank in range(min(count, order.shape[1])):
            goal = np.column_stack([order[:, rank], y])
            x_adv, found = search(goal, best, number, steps)
            nearer = found < size
            best[nearer], size[nearer] = x_adv[nearer], found[nearer]
            sizes[:, rank] = np.minimum(sizes[:, rank], found)
        ranked = sizes.argsort(axis=1, kind="stable")
        order, sizes = (np.take_along_axis(part, ranked, axis=1) for part in (order, sizes))
    return best, size


@compiled
def by_border(model, x, y, power):
    """The MOST classes with the highest logits but y, that of the nearest border first: (n, k).

    power: of the norm by which a slope is measured, the dual of that of the noise.
    """
    with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
        tape.watch(x)
        z = tf.cast(model(x, training=False), x.dtype)
        y = y if y.shape.rank == 2 else y[:, tf.newaxis]
        label = tf.reduce_any(y[..., tf.newaxis] == tf.range(z.shape[1], dtype=y.dtype), axis=1)
        own = tf.reduce_max(tf.where(label, z, z.dtype.min), axis=1, keepdims=True)
        others = tf.where(label, z.dtype.min, z)
        highest, classes = tf.math.top_k(others, min(MOST, z.shape[1] - y.shape[1]))
        margins = tf.unstack(highest - own, axis=1)
    slopes = (tf.abs(tape.gradient(margin, x)) ** power for margin in margins)
    pixels = list(range(1, x.shape.rank))
    slopes = tf.stack([tf.reduce_sum(slope, pixels) for slope in slopes], 1) ** (1 / power)
    distance = tf.math.divide_no_nan(own - highest, slopes)
    return tf.gather(classes, tf.argsort(distance, axis=1), axis=1, batch_dims=1)
