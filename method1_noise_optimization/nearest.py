"""The nearest image with another answer in a norm, by the method for each: for comparisons."""

import numpy as np

from common.networks import mnist
from common.search import checks
from method1_noise_optimization import batches

NORMS = {"l2": "|r|₂", "linf": "|r|∞", "l0": "|r|₀"}


def nearest(model, x, y, norm, *, targeted=False, starts=1, steps=500, judge=None, progress=False):
    """The nearest images found that are anything but y, or targeted, that are y.

    x: float32 (n, ...) in [0, 1].  y: integers (n,).  norm: "l2", by `minimal` from at most so many
    `starts`, "linf", by `smallest_eps` in so many `steps`, or "l0", by `fewest`.  judge: the
    network whose answers count, if it is not the one that is attacked.
    Returns (x_adv, size): float32 like x, and (n,), in pixel units, for "l0" in pixels, infinite
    where none was found.
    """
    if norm == "linf":
        # Here method 1 looks at method 2, whose norm this is.
        from method2_fgsm.smallest_eps import smallest_eps

        size, x_adv = smallest_eps(model, x, y, targeted=targeted, steps=steps)
    else:
        from method1_noise_optimization import fewest, minimal

        x, y = checks.checked(model, x, y)
        name, method, settings, size_of = "minimal", minimal, (starts,), batches.sizes
        if norm == "l0":
            name, method, settings, size_of = "fewest", fewest, (), batches.counts
        find = method.find if targeted else method.find_nearest
        batch_size = min(batches.BATCH_SIZE[name], mnist.at_a_time(x))
        how = {"batch_size": batch_size, "progress": progress}
        x_adv, _ = batches.search(find, model, x, y, batches.MAX_STEPS[name], *settings, **how)
        size = size_of(x_adv - x)
    hit = (mnist.classify(judge or model, x_adv) == y) == targeted
    return x_adv, np.where(hit & np.isfinite(size), size, np.inf)
