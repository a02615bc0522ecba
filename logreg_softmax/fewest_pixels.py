"""The fewest pixels with which a linear classifier changes its answer, exactly.

With the slope a of z_k - z_y and its value -m < 0 at the image x, pixel j adds at most

    γ_j = max(a_j (1 - x_j), -a_j x_j)        at the end of its range, 1 or 0

whatever the others do, so for one rival k the best n pixels are those of the n largest γ, and as
many are needed as it takes for their sum to reach m.  Without a target the least of all rivals is
the answer.

Towards a target t all rivals have to be beaten by the same pixels at once, and no order of the
pixels serves them all: that is a mixed-integer linear programme,

    minimise Σ_j b_j   subject to   z_t(x + r) - z_k(x + r) ≥ 0 for k ≠ t,
                                    -x_j b_j ≤ r_j ≤ (1 - x_j) b_j,   b_j in {0, 1}

which SciPy (HiGHS) solves, or bounds from below where time runs out.
"""

import numpy as np


def fewest_pixels(weights, bias, x, y):
    """How many pixels have to change for another answer than y: float64 (n,), inf where none do.

    weights (d, classes), bias (classes,), x (n, ...) with d pixels in [0, 1], y integers (n,).
    """
    flat, counts = x.reshape(len(x), -1).astype(np.float64), np.empty(len(x))
    for i, (pixels, label) in enumerate(zip(flat, y, strict=True)):
        slopes, leads = _against(weights, bias, pixels, label)
        gains = np.sort(np.maximum(-slopes * (1 - pixels), slopes * pixels))[:, ::-1].cumsum(axis=1)
        enough = np.where(gains > leads[:, np.newaxis], np.arange(1, len(pixels) + 1), np.inf)
        counts[i] = np.where(leads < 0, 0, enough.min(axis=1)).min()
    return counts


def fewest_to_target(weights, bias, x, y_target, seconds=10):
    """The same for x to be classified as y_target (n,): (counts, bounds), float64 (n,).

    seconds: for each image.  bounds are below the optimum, and equal counts where it was found.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import bmat, diags

    flat, found = x.reshape(len(x), -1).astype(np.float64), np.full((2, len(x)), np.inf)
    for i, (pixels, target) in enumerate(zip(flat, y_target, strict=True)):
        slopes, leads = _against(weights, bias, pixels, target)
        unit, d = diags(np.ones(len(pixels))), len(pixels)
        programme = milp(
            np.repeat([0, 1], d),
            integrality=np.repeat([0, 1], d),
            bounds=Bounds(np.concatenate([-pixels, np.zeros(d)]), 1),
            constraints=[
                LinearConstraint(np.hstack([slopes, 0 * slopes]), lb=-leads),
                LinearConstraint(bmat([[unit, diags(pixels)]]), lb=0),
                LinearConstraint(bmat([[unit, diags(pixels - 1)]]), ub=0),
            ],
            options={"time_limit": seconds},
        )
        if programme.status != 2:  # infeasible
            counts = programme.fun, np.ceil(programme.mip_dual_bound - 1e-6)
            found[:, i] = np.inf if counts[0] is None else round(counts[0]), counts[1]
    return found


def _against(weights, bias, pixels, label):
    """Of z_label less each other logit, the slopes (classes - 1, d), and the values at pixels."""
    slopes = np.delete(weights[:, [label]] - weights, label, axis=1).T.astype(np.float64)
    return slopes, slopes @ pixels + np.delete(bias[label] - bias, label)
