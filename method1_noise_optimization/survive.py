"""The smallest noise that survives scaling, JPEG and WebP: a photograph is still its target.

What the network will see is T(x'), with a treatment T that nobody knows (treatments.py).  So the
smallest |x' - x|₂ is looked for with which, 0 ≤ x' ≤ 1,

    z_t(T(x')) - max_{k ≠ t} z_k(T(x')) > 0        for nearly all T that may be drawn

by the expectation over transformations of Athalye et al. 2018 ("Synthesizing robust adversarial
examples"), and otherwise as in minimal.py: linearise, go to the nearest point at which the
linearisation is `aim`, and repeat.  Of the margins and their gradients the mean over the draws of a
step counts, of the gradients also that over the steps, G.  `aim` grows where a draw is a miss, and
shrinks where none is.  Where no T has a gradient (rounding, JPEG), it is taken for the identity
(Athalye et al. 2018, "Obfuscated gradients", section 4.1); but since what is finer than a few
pixels, most of all in colour, does not survive, each gradient is smoothed accordingly.

The points settle around their mean, which is looked at in the end: it is drawn out or in along the
line from x until fresh draws are hits.
"""

import numpy as np
import tensorflow as tf
from PIL import Image

from common.search import checks
from common.search.box_projection import project_onto_one
from common.search.compiled import compiled
from common.search.margins import is_hit, least, margins, pull, sized, spread, sure
from common.search.random_numbers import generators
from common.search.treatments import BICUBIC, on_its_way, treated

MAX_STEPS, DRAWS = 200, 3
# In the end so many fresh draws decide, of which so many have to be hits, about noise that is at
# most so much longer than the mean's.
FRESH, ENOUGH, LONGEST, HALVINGS = 20, 0.9, 1.5, 6
# As in minimal.py; the shares of the spread of the logits at x.
WARMEST, COLDEST, WINDOW, NEWTON_STEPS = 0.25, 0.02, 10.0, 3
AIM_FIRST, AIM_SMALLEST, AIM_LARGEST, AIM_MISSED, AIM_HIT = 0.03, 1e-3, 0.5, 1.15, 0.93
# The share of the steps after which the mean is taken, and the weight of a new point in it.
SETTLED, NEW = 0.6, 0.15
# How many times the gradient's brightness and colours are scaled down, and up again.
BRIGHTNESS, COLOURS = 0.65, 0.4
# JPEG's brightness and two colours of red, green and blue.
YCBCR = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)


def search(model, x, y, *, treatment=on_its_way, confidence=None, max_steps=MAX_STEPS):
    """Photographs that are their targets after most treatments.

    model: from images in [0, 1] to logits.  x: float32 (n, h, w, 3) in [0, 1].  y: integers (n,),
    the targets.  treatment: (image, rng) -> image of Pillow's, of the same size; rng depends on
    the image alone.  confidence: what the probability of the target has to be above.
    Returns (x_adv, steps): float32 like x, whole grey levels in [0, 1], and int64 (n,), max_steps;
    a step takes 3 gradients.  An image that is its target already stays as it is.  Raises
    ValueError as `common/search/checks.py` says.
    """
    x, y = checks.checked(model, x, y, name="targets")
    checks.positive("max_steps", max_steps, whole=True)
    checks.probability("confidence", confidence)
    model, flat = sized(model, x), x.reshape(len(x), -1)
    model = model if confidence is None else sure(model, float(confidence))

    def seen(points, count, rngs):
        """What `count` treatments make of each point (n, d): float32 (n * count, h, w, 3)."""
        images = zip(to_pixels(points).reshape(x.shape), rngs, strict=True)
        drawn = [treated(image, treatment, rng) for image, rng in images for _ in range(count)]
        return np.stack(drawn) / np.float32(255)

    def survives(points):
        """Whether nearly all of some draws, the same at each call, are hits: (n,)."""
        drawn = seen(np.asarray(points), FRESH, generators(x, 1))
        hit = is_hit(model, drawn.reshape(len(drawn), -1), np.repeat(y, FRESH))
        return tf.reduce_mean(tf.cast(tf.reshape(hit, [-1, FRESH]), tf.float32), axis=1) >= ENOUGH

    unit = _spread(model, x).numpy()
    p = mean = flat
    G, mu, aim, rngs = np.zeros_like(flat), np.zeros_like(flat[:, :1]), AIM_FIRST, generators(x, 0)
    for step in range(max_steps):
        share = step / max_steps
        temperature = unit * np.float32(WARMEST * (COLDEST / WARMEST) ** share)
        repeated = (np.repeat(each, DRAWS) for each in (y, temperature))
        found = [part.numpy() for part in _look(model, seen(p, DRAWS, rngs), *repeated)]
        hit, margin = (part.reshape(len(x), DRAWS) for part in found[:2])
        slope = found[2].reshape(len(x), DRAWS, *x.shape[1:]).mean(axis=1)
        checks.finite(slope, "logits or gradients")
        slope = np.stack([smooth(each) for each in slope]).reshape(flat.shape)
        aim = aim * np.where(hit.all(axis=1), AIM_HIT, AIM_MISSED)
        aim = np.clip(aim, AIM_SMALLEST, AIM_LARGEST)
        weight = WINDOW / (step + WINDOW) * min(2 * (1 - share), 1)
        G += np.float32(weight) * (slope - G)
        b = aim * unit - margin.mean(axis=1) + (G * p).sum(axis=1)
        b = b[:, np.newaxis].astype(np.float32)
        p, mu = (part.numpy() for part in _project(flat, G, b, mu))
        mean = p if share < SETTLED else mean + NEW * (p - mean)
    _, x_adv = pull(survives, flat, flat + LONGEST * (mean - flat), HALVINGS)
    already = is_hit(model, flat, y).numpy()[:, np.newaxis]
    x_adv = np.where(already, flat, to_pixels(x_adv) / np.float32(255))
    return x_adv.reshape(x.shape), np.full(len(x), max_steps)


def to_pixels(x):
    """Images in [0, 1] as the nearest whole grey levels, uint8."""
    return np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8)


def smooth(gradient):
    """A gradient (h, w, 3) without what is finer than what survives, in colour still less."""
    bands = gradient @ np.linalg.inv(YCBCR)
    for band, part in enumerate((BRIGHTNESS, COLOURS, COLOURS)):
        image = Image.fromarray(bands[..., band])
        small = image.resize([max(1, round(side * part)) for side in image.size], BICUBIC)
        bands[..., band] = small.resize(image.size, BICUBIC)
    return bands @ YCBCR


@compiled
def _spread(model, x):
    return spread(model(x, training=False))


@compiled
def _look(model, x, y, temperature):
    """Whether images are hits, the margin smoothed by temperatures (n,), and its gradient."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        z = model(x, training=False)
        g = margins(z, y)
        margin = -temperature * tf.reduce_logsumexp(-g / temperature[:, tf.newaxis], axis=1)
    return tf.reduce_min(g, axis=1) > least(model, z), margin, tape.gradient(margin, x)


@tf.function(reduce_retracing=True)
def _project(x, G, b, mu):
    return project_onto_one(x, G, b, mu, NEWTON_STEPS)
