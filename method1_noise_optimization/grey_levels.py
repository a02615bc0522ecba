"""The smallest change in whole grey levels with which a photograph is classified as its target.

An image file holds 256 levels a value, and noise of method 1 is a fraction of one level: rounded,
it is gone.  So here the search is among 8-bit images themselves.

Were the target's margin over the other classes linear, with slope G, the best change d of whole
levels would be known but for one number t:

    smallest |d|_2                              d = round(t G)
    within N levels, fewest values changed      d = N sign(G) where t |G| > 1/2, 0 elsewhere

with the smallest t that reaches the target (each level of a value is worth |G| and costs 2 |d| - 1
more; in the second case a changed value costs the same however far it goes).  In a network G is a
running average of the gradients met, as in minimal.py.  t shrinks after each hit and grows after
each miss, by a factor that comes nearer to one each time the two alternate, much as the radius in
Rony et al. 2019 ("Decoupling Direction and Norm").  A step is one gradient.
"""

import numpy as np
import tensorflow as tf

from common.search import checks
from common.search.compiled import compiled
from common.search.margins import least, log_odds, margins, per_image

MAX_STEPS = 100
# The weight of a new gradient beside m earlier ones is WINDOW / (m + WINDOW).
WINDOW = 4.0
# The factor of t is 1 + RATE at first, and RATE is CALMER times itself whenever a hit follows a
# miss or a miss a hit.
RATE, CALMER, SMALLEST_RATE = 0.1, 0.9, 0.005


def search(
    model, pixels, y_target, *, levels=None, noise=None, confidence=None, max_steps=MAX_STEPS
):
    """8-bit images classified as their targets, with the smallest change that was found.

    model: from images in [0, 1] to logits.  pixels: uint8 (n, ...), the originals.  y_target:
    integers (n,).  levels: None for the smallest L2 norm; N for as few values changed as can be,
    none of them by more than N.  noise: float (n, ...) in [0, 1] units, the direction to begin in.
    confidence: the softmax probability that the target must have, above 0 and below 1; None when it
    only has to be the largest.  max_steps: gradients for each image.

    Returns (images, reached): uint8 like pixels, and bool (n,).  An image that is its target
    already comes back as it is; where the target was not reached, the last image tried does.
    Raises ValueError as `common/search/checks.py` says.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels are {pixels.dtype}, not uint8")
    x, y_target = checks.checked(model, pixels / np.float32(255), y_target, name="targets")
    if levels is not None and not (isinstance(levels, int | np.integer) and 1 <= levels <= 255):
        raise ValueError(f"levels must be a whole number from 1 to 255, not {levels!r}")
    checks.probability("confidence", confidence)
    checks.positive("max_steps", max_steps, whole=True)
    if not len(pixels):
        return pixels.copy(), np.zeros(0, bool)
    few, levels = levels is not None, 255 if levels is None else levels
    needed = np.float32(np.nan if confidence is None else np.log(confidence / (1 - confidence)))

    original = pixels.astype(np.float32)
    shape = (-1, *[1] * (pixels.ndim - 1))
    if noise is None:
        G, t, met = np.zeros_like(original), np.zeros(len(x), np.float32), 0.0
    else:
        size = np.sqrt((noise.astype(np.float64) ** 2).sum(axis=tuple(range(1, noise.ndim))))
        G = (noise / np.maximum(size, 1e-12).reshape(shape)).astype(np.float32)
        t, met = (size * 255).astype(np.float32), WINDOW
    rate, cost = np.full(len(x), RATE, np.float32), np.full(len(x), np.inf, np.float32)
    state = original, G, t, rate, np.zeros(len(x), bool), original, cost
    for step in range(max_steps + 1):
        weight = 1.0 if met + step == 0 else WINDOW / (met + step + WINDOW)
        state = _step(model, original, y_target, state, weight, float(levels), few, needed)
    image, *_, best, cost = (part.numpy() for part in state)
    reached = np.isfinite(cost)
    found = np.where(reached.reshape(shape), best, image)
    return found.astype(np.uint8), reached


@compiled
def _step(model, original, target, state, weight, levels, few, needed):
    """Look at the image, keep it if it is the best hit so far, and make the next one."""
    image, G, t, rate, was_hit, best, cost = state
    n, axes = tf.shape(image)[0], list(range(1, len(image.shape)))
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(image)
        z = model(image / 255, training=False)
        g = margins(z, target)
        worst = tf.reduce_min(g, axis=1) - least(model, z)
        ahead = tf.where(tf.math.is_nan(needed), worst, log_odds(g) - needed)
    gradient = tape.gradient(ahead, image)
    hit = ahead > 0
    change = tf.abs(image - original)
    new_cost = tf.reduce_sum(tf.cast(change > 0, tf.float32) if few else change**2, axis=axes)
    better = hit & (new_cost < cost)
    best = tf.where(per_image(better, image), image, best)
    cost = tf.where(better, new_cost, cost)

    gradient /= per_image(tf.sqrt(tf.reduce_sum(gradient**2, axis=axes)) + 1e-12, image)
    G = (1 - weight) * G + weight * gradient
    size = tf.abs(G) / per_image(tf.sqrt(tf.reduce_sum(G**2, axis=axes)) + 1e-12, image)
    # The first step: as many values as would change if |G| were alike.
    t = tf.where(t == 0, tf.sqrt(tf.cast(tf.size(G) / n, tf.float32)) / 4, t)
    rate = tf.where((hit != was_hit), tf.maximum(rate * CALMER, SMALLEST_RATE), rate)
    t = tf.where(hit, t / (1 + rate), t * (1 + rate))
    wanted = per_image(t, image) * size
    moved = tf.where(wanted > 0.5, levels, 0.0) if few else tf.minimum(tf.round(wanted), levels)
    room = tf.where(G > 0, 255 - original, original)
    image = original + tf.sign(G) * tf.minimum(moved, room)
    return image, G, t, rate, hit, best, cost
