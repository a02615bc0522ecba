"""Method 1 on photographs: what attack_imnet.py has its workers do with each batch."""

import hashlib
import os

import numpy as np

from common.networks import mnist
from method1_noise_optimization import attack

# Photographs need more steps of minimal than digits.
MAX_STEPS = {**attack.MAX_STEPS, "minimal": 100, "grey levels": 100, "survive": 100}
# What the targets that are no class are called.
GOALS = {"random": "random targets", "any": "the nearest class"}
BATCH_SIZE = 3  # photographs for a core, to which lbfgs and minimal add 25 MB each


def random_target(path, seed, classes=1000):
    """One of the classes for a photograph, by its name: another folder changes nothing."""
    name = os.fsencode(os.path.basename(path))
    digest = hashlib.sha256(b"%d %s" % (seed, name)).digest()
    return int.from_bytes(digest[:8], "big") % classes


def survive(model, x, y, *, max_steps, targeted=True):
    """Photographs that are what they are after most treatments: (x_adv, steps)."""
    from method1_noise_optimization import survive

    return survive.search(model, x, y, targeted=targeted, max_steps=max_steps)


def as_they_are(model, pixels, x_adv, y):
    """x_adv in 8 bits, uint8."""
    return np.rint(255 * x_adv).astype(np.uint8)


def few_levels(model, x, y_target, *, levels, confidence, max_steps):
    """Photographs in which few values have moved, by `levels` at most: (x_adv, steps)."""
    from method1_noise_optimization import grey_levels

    how = {"levels": levels, "confidence": confidence, "max_steps": max_steps}
    images, _ = grey_levels.search(model, np.round(x * 255).astype(np.uint8), y_target, **how)
    return images / np.float32(255), np.full(len(x), max_steps)


def smallest_file(model, pixels, x_adv, y_target):
    """The 8-bit images nearest to `pixels` (uint8) that are their targets, as x_adv (float) is."""
    from method1_noise_optimization import grey_levels

    noise = x_adv - pixels / np.float32(255)
    return grey_levels.search(model, pixels, y_target, noise=noise)[0]


def smallest_file_of_any(model, pixels, x_adv, y):
    """The same for whichever classes x_adv is seen as; y, the labels, are left by that."""
    return smallest_file(model, pixels, x_adv, mnist.classify(model, x_adv))
