"""The fast gradient sign method (Goodfellow, Shlens & Szegedy 2015, "Explaining and Harnessing
Adversarial Examples", section 4).

Images are float32 (n, ...) in [0, 1], labels integers (n,), epsilon in the same [0, 1] pixel
units.  A model is any Keras model from such images to logits (n, classes).
"""

import numpy as np
import tensorflow as tf

from common.search import checks
from common.search.compiled import compiled


@compiled
def sign_step(model, x, y, eps):
    """The formula, for one batch: tensors in, a tensor like x out."""
    return tf.clip_by_value(x + eps * gradient_sign(model, x, y), 0, 1)


def fgsm(model, x, y, eps, *, targeted=False, batch_size=1000):
    """One step of size eps along the sign of the gradient, kept inside [0, 1].

    Untargeted, `y` are the labels to get away from (Goodfellow et al. 2015, section 4):

        x_adv = clip(x + eps * sign(∇ₓ J(x, y)))

    Targeted, `y` are the labels to reach, and the step goes the other way:

        x_adv = clip(x - eps * sign(∇ₓ J(x, y)))

    Where the true labels are not known, pass the model's own predictions as `y`.
    (In adversarial training true labels leak through the step; see Kurakin et al. 2017.)

    eps: from 0 to 1: a number, or one for each image, (n,).
    Returns x_adv: float32, the shape of x, in [0, 1] and within eps of x.
    Raises ValueError as `common/search/checks.py` says.
    """
    checks.positive("batch_size", batch_size, whole=True)
    x, y = checks.checked(model, x, y)
    eps = checks.pixel_size("eps", eps, x)
    eps = np.float32(-eps if targeted else eps)
    x_adv = np.empty_like(x)
    for start in range(0, len(x), batch_size):
        batch = slice(start, start + batch_size)
        x_adv[batch] = sign_step(model, x[batch], y[batch], eps[batch]).numpy()
    checks.finite(x_adv, "logits or gradients")
    return x_adv


def gradient_signs(model, x, y, *, batch_size=1000):
    """sign(∇ₓ J(x, y)) of any number of images, a batch at a time: float32 like x, of -1, 0 and 1.

    Arguments and errors are those of `fgsm`.
    """
    checks.positive("batch_size", batch_size, whole=True)
    x, y = checks.checked(model, x, y)
    sign = np.empty_like(x)
    for start in range(0, len(x), batch_size):
        batch = slice(start, start + batch_size)
        sign[batch] = gradient_sign(model, x[batch], y[batch]).numpy()
    checks.finite(sign, "logits or gradients")
    return sign


@compiled
def gradient_sign(model, x, y):
    """sign(∇ₓ J(x, y)) for one batch: a tensor like x with entries -1, 0 and 1."""
    return sign_and_logits(model, x, y)[0]


def sign_and_logits(model, x, y):
    """The sign of the gradient for one batch, and the logits that were computed on the way."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = model(x, training=False)
    gradient = tape.gradient(logits, x, output_gradients=ascent(logits, y))
    # The sign, and NaN where the gradient is infinite.
    return tf.math.divide_no_nan(gradient, tf.abs(gradient)), logits


def ascent(logits, y):
    """How the logits should move to increase the loss J = -log p_y: (n, classes).

    This is the gradient of J by the logits, divided by (1 - p_y): minus one for the label y, and
    for each other class its probability given that y is not the answer.  The division changes no
    sign.  But where the model is so sure that p_y rounds to 1, the gradient's own entry for y,
    p_y - 1, rounds to zero, and the sign loses the label that it should lead away from.
    """
    is_label = tf.one_hot(y, logits.shape[-1], on_value=True, off_value=False)
    others = tf.where(is_label, logits.dtype.min, logits)
    direction = tf.nn.softmax(others) - tf.cast(is_label, logits.dtype)
    # Where a logit is not finite, neither is what an attack makes of it.
    finite = tf.reduce_all(tf.math.is_finite(logits), axis=-1, keepdims=True)
    return tf.where(finite, direction, np.nan)
