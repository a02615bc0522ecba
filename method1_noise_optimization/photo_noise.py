"""Method 1 on photographs: what attack_imnet.py has its workers do with each batch."""

import hashlib
import os

import numpy as np

from common.networks import mnist

METHODS = "sgd", "lbfgs", "minimal", "survive"  # fewest takes minutes for a photograph
MAX_STEPS = {"sgd": 1000, "lbfgs": 50, "minimal": 100, "grey levels": 100, "survive": 200}
# What the targets that are no class are called.
GOALS = {"random": "random targets", "any": "the nearest class"}
BATCH_SIZE = 3  # photographs for a core, to which lbfgs and minimal add 25 MB each


def random_target(path, seed, classes=1000):
    """One of the classes for a photograph, by its name: another folder changes nothing."""
    name = os.fsencode(os.path.basename(path))
    digest = hashlib.sha256(b"%d %s" % (seed, name)).digest()
    return int.from_bytes(digest[:8], "big") % classes


def survive(model, x, y, *, targeted=True, **settings):
    """Photographs that stay their targets under most treatments: (x_adv, steps).  Untargeted, the
    target is what each is taken for most, but for its label."""
    from method1_noise_optimization import survive

    if not targeted:
        z = mnist.predict(model, x)
        z[np.arange(len(y)), y] = -np.inf
        y = z.argmax(axis=1)
    return survive.search(model, x, y, **settings)


def as_it_is(model, pixels, x_adv, y, *, confidence):
    """x_adv in 8 bits, uint8."""
    return np.rint(255 * x_adv).astype(np.uint8)


def few_levels(model, x, y_target, *, levels, confidence, max_steps):
    """Photographs in which few values have moved, by `levels` at most: (x_adv, steps)."""
    from method1_noise_optimization import grey_levels

    how = {"levels": levels, "confidence": confidence, "max_steps": max_steps}
    images, _ = grey_levels.search(model, np.round(x * 255).astype(np.uint8), y_target, **how)
    return images / np.float32(255), np.full(len(x), max_steps)


def smallest_file(model, pixels, x_adv, y_target, *, confidence):
    """The 8-bit images nearest to `pixels` (uint8) that are their targets, as x_adv (float) is, and
    as sure; the pixels where x_adv has no noise."""
    from method1_noise_optimization import grey_levels

    noise = x_adv - pixels / np.float32(255)
    images, _ = grey_levels.search(model, pixels, y_target, noise=noise, confidence=confidence)
    return np.where(noise.any(axis=(1, 2, 3), keepdims=True), images, pixels)


def smallest_file_of_any(model, pixels, x_adv, y, *, confidence):
    """The same for whichever classes x_adv is seen as; y, the labels, are left by that."""
    seen = mnist.classify(model, x_adv)
    return smallest_file(model, pixels, x_adv, seen, confidence=confidence)
