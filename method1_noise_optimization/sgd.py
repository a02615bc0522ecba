"""Gradient descent on the noise until the target is reached.

    minimise   cross entropy(f(clip(x + r)), t) + regulariser(r)     by  r ← r - rate · gradient

from r = 0, where the regulariser is nothing, mean |r| or mean r².  Every image is a problem of
its own and stops at the first step at which it is classified as its target t.
"""

import numpy as np
import tensorflow as tf

from common.search.compiled import compiled
from common.search.margins import least, logits, margin

STEPS_A_CALL = 5


def find(model, x, y_target, max_steps, progress, regularization, learning_rate, batch_size):
    """The noisy images and how many steps each took.

    x (n, d) float32 in [0, 1], y_target (n,) int64.  Returns x_adv (n, d) float32 and steps
    (n,) int64; where max_steps were not enough, x_adv is what they led to.
    """
    r = np.zeros_like(x)
    steps = np.zeros(len(x), np.int64)
    waiting = np.arange(len(x))
    rate = tf.constant(learning_rate, tf.float32)
    # An image that is finished makes room for the next one, so that the batch stays full.
    while len(waiting):
        batch = waiting[:batch_size]
        left = tf.constant(max_steps - steps[batch])
        moved, taken, reached = _steps(
            model, x[batch], y_target[batch], r[batch], left, rate, regularization
        )
        r[batch] = moved
        steps[batch] += taken.numpy()
        active = ~reached.numpy() & (steps[batch] < max_steps)
        progress(len(batch) - active.sum())
        waiting = np.concatenate([batch[active], waiting[batch_size:]])
    return np.clip(x + r, 0, 1), steps


@compiled
def _steps(model, x, target, r, left, rate, regularization):
    """Up to STEPS_A_CALL steps: the noise, the steps taken, and which targets were reached."""
    taken = tf.zeros_like(left)
    reached = tf.zeros_like(target, tf.bool)
    for _ in tf.range(STEPS_A_CALL):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(r)
            z = logits(model, tf.minimum(tf.maximum(x + r, 0), 1))
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(target, z)
            if regularization == "l1":
                loss += tf.reduce_mean(tf.abs(r), axis=1)
            elif regularization == "l2":
                loss += tf.reduce_mean(r**2, axis=1)
        gradient = tape.gradient(loss, r)
        reached |= margin(z, target) > least(model, z)
        active = ~reached & (taken < left)
        # Beyond ±1 a pixel is black or white anyway; ±2 says so and keeps r from overflowing.
        new_r = tf.clip_by_value(r - rate * gradient, -2, 2)
        r = tf.where(active[:, tf.newaxis], new_r, r)
        taken += tf.cast(active, taken.dtype)
    return r, taken, reached
