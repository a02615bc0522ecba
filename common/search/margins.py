"""The margin: how far the target is ahead of the other classes, which all searches go by."""

import math

import numpy as np
import tensorflow as tf

from common.search import checks
from common.search.compiled import compiled, known, memory_of
from common.search.logits import rounding


def margins(logits, y_target):
    """z_t - z_k for every class k, (n, classes); for k = t itself the dtype's largest number.

    With a rival t and a label y for each image, y_target (n, 2): z_t - z_y alone, (n, 1); with more
    labels a column for each.
    """
    if y_target.shape.rank == 2:
        pair = tf.gather(logits, y_target, axis=1, batch_dims=1)
        return pair[:, :1] - pair[:, 1:]
    chosen = tf.one_hot(y_target, logits.shape[-1], on_value=True, off_value=False)
    target = tf.reduce_sum(tf.where(chosen, logits, 0), axis=1, keepdims=True)
    return tf.where(chosen, logits.dtype.max, target - logits)


def margin(logits, y_target):
    """z_t - max_{k≠t} z_k, (n,): positive exactly where t is predicted."""
    return tf.reduce_min(margins(logits, y_target), axis=1)


def log_odds(margins):
    """log(p_t / (1 - p_t)) of the softmax, (n,), from all margins (n, classes)."""
    return -tf.reduce_logsumexp(-margins, axis=1)


def least(model, logits):
    """The margin that is no rounding: a class counts as predicted where its own is larger, (n,)."""
    return rounding(model) * tf.reduce_max(tf.abs(logits), axis=1)


def spread(logits):
    """How far the logits of each image lie apart, (n,): what its margins are large or small beside.

    Above 0 even where all logits are equal.
    """
    return tf.maximum(tf.reduce_max(logits, axis=1) - tf.reduce_min(logits, axis=1), 1e-12)


def logits(model, flat):
    """Logits (n, classes) of flattened images (n, d), in their dtype."""
    images = tf.reshape(flat, [-1, *model.input_shape[1:]])
    return tf.cast(model(images, training=False), flat.dtype)


@compiled
def is_hit(model, flat, y_target):
    """Whether flattened images (n, d) are classified as their targets: bool (n,)."""
    z = logits(model, flat)
    return margin(z, y_target) > least(model, z)


def pull(hit, x, x_adv, halvings):
    """The hits x_adv, moved towards x (n, ...) along the straight line while they stay hits.

    hit(points like x) -> bool (n,).  Returns what share of the way is left, (n,), and the points.
    """
    low = tf.zeros(tf.shape(x)[:1], x.dtype)
    high = tf.ones_like(low)
    for _ in tf.range(halvings):
        middle = (low + high) / 2
        reached = hit(x + per_image(middle, x) * (x_adv - x))
        low, high = tf.where(reached, low, middle), tf.where(reached, middle, high)
    return high, x + per_image(high, x) * (x_adv - x)


def per_image(values, x):
    """One value an image (n,), in a shape that multiplies images like x."""
    return tf.reshape(values, [-1] + [1] * (len(x.shape) - 1))


@compiled
def _finite(model, x, target):
    """Where the logits, and the slopes of the margin by the pixels, are finite: bool (n,)."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        z = logits(model, x)
        g = margin(z, target)
    finite = (tf.math.is_finite(part) for part in (z, tape.gradient(g, x)))
    return tf.logical_and(*(tf.reduce_all(part, axis=1) for part in finite))


def check_slopes(model, x, y_target, batch_size):
    """Raise ValueError where a logit or a gradient at the images x (n, d) is not finite."""
    finite = np.ones((len(x), 1), np.float32)
    for start in range(0, len(x), batch_size):
        batch = slice(start, start + batch_size)
        finite[batch][~_finite(model, x[batch], y_target[batch]).numpy()] = np.nan
    checks.finite(finite, "logits or gradients")


class Sized:
    """A Keras model that leaves sizes open, or declares none, with those of the images at hand."""

    def __init__(self, model, image_shape, classes):
        self.input_shape, self.output_shape = (None, *image_shape), (None, classes)
        self._model, self._memory, self.layers = model, memory_of(model), [model]

    def __call__(self, x, training):
        return self._model(x, training=training)


class Sure(Sized):
    """A model with one class more, "not sure enough", which is predicted unless one has p > c.

    Its logits are z_k - log(1 - p_k), with p the softmax of the model's logits z, and at the end
    logsumexp(z) + log(c / (1 - c)): a class is ahead of that by its log odds less those of c.
    """

    def __init__(self, model, confidence):
        super().__init__(model, model.input_shape[1:], model.output_shape[-1] + 1)
        self.needed = math.log(confidence / (1 - confidence))

    def __call__(self, x, training):
        z = super().__call__(x, training)
        top = tf.one_hot(tf.argmax(z, axis=1), z.shape[1], on_value=True, off_value=False)
        total = tf.reduce_logsumexp(z, axis=1, keepdims=True)
        # For the largest, p may round to 1.
        others = tf.reduce_logsumexp(tf.where(~top, z, z.dtype.min), axis=1, keepdims=True)
        smaller = tf.math.log1p(-tf.where(~top, tf.exp(z - total), 0))
        odds = z - tf.where(top, others - total, smaller)
        return tf.concat([odds, total + self.needed], axis=1)


def sure(model, confidence):
    """The `Sure` of a `sized` model, the same one each time."""
    return known(model).setdefault((Sure, confidence, model.input_shape), Sure(model, confidence))


def sized(model, x):
    """The model itself where it declares the sizes of the images x (n, ...), or else a `Sized`."""
    shape = x.shape[1:]
    if getattr(model, "input_shape", ())[1:] == shape:
        return model
    classes = checks.count_classes(model, x)
    return known(model).setdefault((Sized, shape), Sized(model, shape, classes))
