"""The fast gradient sign method (Goodfellow, Shlens & Szegedy 2015, "Explaining and Harnessing
Adversarial Examples", section 4), and the smallest epsilon with which it reaches a target.

Images are float32 (n, ...) in [0, 1], labels integers (n,), epsilon in the same [0, 1] pixel
units.  A model is any Keras model from such images to logits (n, classes).
"""

import keras
import numpy as np
import tensorflow as tf

from common import contract
from common.compiled import compiled

# A target counts as reached when its logit leads by this much: less is rounding, which another
# batch size could undo.  (Method 1, which seeks out the border itself, asks for ten times that.)
LEAD = 1e-5


def ascent(logits, y):
    """How the logits should move for the loss J = -log p_y to rise: (n, classes).

    The gradient of J by the logits, divided by (1 - p_y): minus one for the label y, and for the
    others their probabilities given that it is not y.  The division changes no sign.  But where
    the model is so sure that p_y rounds to 1, the entry for y in the gradient of J, p_y - 1,
    rounds to zero, and the sign forgets the label it should lead away from; this one does not.
    """
    chosen, others = _chosen_and_others(logits, y)
    return tf.nn.softmax(others) - tf.cast(chosen, logits.dtype)


def _chosen_and_others(logits, y):
    """Where the label y is, as booleans (n, classes), and the logits with that one out of sight."""
    chosen = tf.one_hot(y, logits.shape[-1], on_value=True, off_value=False)
    return chosen, tf.where(chosen, logits.dtype.min, logits)


@compiled
def gradient_sign(model, x, y):
    """sign(∇ₓ J(x, y)) for a batch, compiled: a tensor like x with entries -1, 0 and 1."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = model(x, training=False)
    return tf.sign(tape.gradient(logits, x, output_gradients=ascent(logits, y)))


@compiled
def _step(model, x, y, eps):
    return tf.clip_by_value(x + eps * gradient_sign(model, x, y), 0, 1)


# XLA makes one pass over the pixels of what are five here, which counts where the network itself
# is hardly more than that.  It compiles for every batch size anew, and on the processor its
# matrix products are no faster, its convolutions slower than TensorFlow's own.
_fused_step = compiled(_step.__wrapped__, jit_compile=True)


def _is_linear(model):
    """Whether a Keras model is nothing but one Dense layer, as softmax regression is."""
    kinds = [type(layer) for layer in model.layers]
    return set(kinds) <= {keras.layers.InputLayer, keras.layers.Flatten, keras.layers.Dense} and (
        kinds.count(keras.layers.Dense) == 1
    )


def gradient_signs(model, x, y, *, batch_size=1000):
    """sign(∇ₓ J(x, y)) of any number of images, a batch at a time.

    x: float32 (n, ...) in [0, 1].  y: integers (n,).  Returns float32 like x, of -1, 0 and 1.
    Raises ValueError for a batch_size below 1, pixels outside [0, 1] or not numbers, and labels
    that do not match the images or the model.
    """
    contract.positive("batch_size", batch_size, whole=True)
    x, y = contract.checked(model, x, y)
    sign = np.empty_like(x)
    for start in range(0, len(x), batch_size):
        batch = slice(start, start + batch_size)
        sign[batch] = np.asarray(memoryview(gradient_sign(model, x[batch], y[batch])))
    return sign


def fgsm(model, x, y, eps, *, targeted=False, batch_size=1000):
    """One step of size eps along the sign of the gradient, kept inside [0, 1].

    Untargeted, `y` are the labels to get away from (Goodfellow et al. 2015, section 4):

        x_adv = clip(x + eps * sign(∇ₓ J(x, y)))

    Targeted, `y` are the labels to reach, and the sign of eps turns round:

        x_adv = clip(x - eps * sign(∇ₓ J(x, y)))

    Untargeted, pass the model's own predictions as `y` when the true labels are not known.
    (In adversarial training true labels leak through the step; see Kurakin et al. 2017.)

    x: float32 (n, ...) in [0, 1].  y: integers (n,).  eps: at least 0, in pixel units.
    Returns x_adv: float32, the shape of x, in [0, 1] and within eps of x.
    Raises ValueError when eps is negative or not finite, for a batch_size below 1, pixels outside
    [0, 1] or not numbers, and labels that do not match the images or the model.
    """
    if not (np.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps must be a finite number of at least 0, not {eps!r}")
    contract.positive("batch_size", batch_size, whole=True)
    x, y = contract.checked(model, x, y)
    eps = min(eps, 1)  # further is out of the box, and in float32 it may be infinite
    step = tf.constant(-eps if targeted else eps, tf.float32)
    fused = _is_linear(model)
    x_adv = np.empty_like(x)
    for start in range(0, len(x), batch_size):
        batch = slice(start, start + batch_size)
        full = start + batch_size <= len(x)
        moved = (_fused_step if fused and full else _step)(model, x[batch], y[batch], step)
        # Through its memory, not .numpy(), which would copy the batch once more.
        x_adv[batch] = np.asarray(memoryview(moved))
    return x_adv


def smallest_eps(
    model,
    x,
    y_target,
    *,
    max_eps=1.0,
    tol=1e-4,
    resolution=1e-3,
    confidence=0.0,
    batch_size=1000,
):
    """The smallest eps with which one targeted, clipped sign step is classified as its target.

    The sign is taken once, at x.  Along x(eps) = clip(x - eps * sign(∇ₓ J(x, y_target))) the
    target may be reached, lost and reached again; what is returned is the first crossing.  To
    find it, every eps on a grid from 0 to max_eps in steps of `resolution` is tried in
    ascending order, and bisection runs only inside the first grid step that ends at the target.
    So the answer is the first crossing up to one thing: a stretch of success narrower than
    `resolution` between two grid points is stepped over.

    x: float32 (n, ...) in [0, 1].  y_target: integers (n,).  tol: how far above the crossing
    the answer may lie.  All in pixel units.  confidence: ask for more than that probability of
    the target, from 0 (being classified as it is enough) to below 1.  Logits that are `LEAD` or
    less apart are a tie, and no class.
    Returns (eps, x_adv): float32 (n,), NaN where no eps up to max_eps will do, and 0 where x is
    classified as its target already; float32 like x, the adversarial images at exactly that
    eps, and x itself where there is none.
    Raises ValueError when max_eps, tol or resolution is not above 0, confidence is not in
    [0, 1), for a batch_size below 1, pixels outside [0, 1] or not numbers, and labels that do not
    match the images or the model.
    """
    for name, value in (("max_eps", max_eps), ("tol", tol), ("resolution", resolution)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a finite number above 0, not {value!r}")
    if not 0 <= confidence < 1:
        raise ValueError(f"confidence must be at least 0 and below 1, not {confidence!r}")
    contract.positive("batch_size", batch_size, whole=True)
    x, y_target = contract.checked(model, x, y_target)
    max_eps = min(max_eps, 1)  # all pixels have reached their bound by then
    confidence = tf.constant(confidence, tf.float32)
    steps = int(np.ceil(max_eps / resolution - 1e-9))
    grid = np.minimum(np.arange(steps + 1) * resolution, max_eps).astype(np.float32)

    eps = np.full(len(x), np.nan, np.float32)
    x_adv = x.copy()
    for start in range(0, len(x), batch_size):
        batch = slice(start, start + batch_size)
        sign = gradient_sign(model, x[batch], y_target[batch]).numpy()
        eps[batch] = _first_crossing(
            model, x[batch], sign, y_target[batch], grid, tol, confidence, batch_size
        )
        distance = np.nan_to_num(eps[batch]).reshape(-1, *[1] * (x.ndim - 1))
        x_adv[batch] = np.clip(x[batch] - distance * sign, 0, 1)
    return eps, x_adv


def _first_crossing(model, x, sign, y_target, grid, tol, confidence, batch_size):
    """The scan over the grid and the bisection of `smallest_eps`, for one batch of images."""
    crossing = np.full(len(x), -1)
    active = np.arange(len(x))
    tried = 0
    while len(active) and tried < len(grid):
        # The fewer images are left, the more epsilons of each fit into a batch.
        ahead = grid[tried : tried + max(1, batch_size // len(active))]
        reached = _reached(
            model,
            x[active],
            sign[active],
            y_target[active],
            confidence,
            np.tile(ahead, (len(active), 1)),
        ).numpy()
        done = reached.any(axis=1)
        crossing[active[done]] = tried + reached[done].argmax(axis=1)
        active = active[~done]
        tried += len(ahead)

    found = crossing >= 0
    high = np.where(found, grid[crossing], np.float32(np.nan))
    low = grid[np.maximum(crossing - 1, 0)]
    narrow = np.flatnonzero(found & (high - low > tol))
    while len(narrow):
        middle = (low[narrow] + high[narrow]) / 2
        # Below float32's own spacing the middle is one of the ends: no narrower can be had.
        between = (low[narrow] < middle) & (middle < high[narrow])
        reached = _reached(
            model, x[narrow], sign[narrow], y_target[narrow], confidence, middle[:, np.newaxis]
        ).numpy()[:, 0]
        high[narrow[reached]] = middle[reached]
        low[narrow[~reached]] = middle[~reached]
        narrow = narrow[(high[narrow] - low[narrow] > tol) & between]
    return high


@compiled
def _reached(model, x, sign, y_target, confidence, eps):
    """Whether clip(x - eps * sign) is its target, surely enough: bool (n, k) for eps (n, k)."""
    n, k = tf.shape(eps)[0], tf.shape(eps)[1]
    pixels = x.shape[1:]
    eps = tf.reshape(eps, [n, k] + [1] * len(pixels))
    moved = tf.clip_by_value(x[:, tf.newaxis] - eps * sign[:, tf.newaxis], 0, 1)
    logits = model(tf.reshape(moved, [n * k, *pixels]), training=False)
    chosen, others = _chosen_and_others(logits, tf.repeat(y_target, k))
    lead = tf.reduce_sum(tf.where(chosen, logits, 0), axis=1) - tf.reduce_max(others, axis=1)
    p = tf.reduce_sum(tf.where(chosen, tf.nn.softmax(logits), 0), axis=1)
    return tf.reshape((lead > LEAD) & (p > confidence), [n, k])
