"""The fewest pixels with which a linear classifier changes its answer, exactly.

With the slope a of z_k - z_y, pixel j adds at most max(a_j (1 - x_j), -a_j x_j) to it, at 1 or 0,
whatever the others do.  So against one rival k the best pixels are those that add most, as many as
it takes to make up for z_y - z_k, and without a target the least of all rivals is the answer.

Towards a target t the same pixels have to beat all rivals at once, in a mixed-integer programme:

    minimise Σ_j b_j   subject to   z_t(x + r) - z_k(x + r) ≥ 0 for k ≠ t,
                                    -x_j b_j ≤ r_j ≤ (1 - x_j) b_j,   b_j in {0, 1}
"""

import numpy as np

from logreg_softmax.linear_programme import constraints


def fewest_pixels(weights, bias, x, y):
    """How many pixels have to change for another answer than y: float64 (n,), inf where none do.

    weights (d, classes), bias (classes,), x (n, ...) with d pixels in [0, 1], y integers (n,).
    """
    counts = []
    for pixels, *lines in zip(x.reshape(len(x), -1), *constraints(weights, bias, y), strict=True):
        slopes, leads = lines[0], lines[0] @ pixels + lines[1]
        adds = np.sort(np.maximum(slopes * pixels, slopes * (pixels - 1)), axis=1)[:, ::-1]
        behind = np.insert(adds.cumsum(axis=1), 0, 0, axis=1) > leads[:, np.newaxis]
        counts.append(np.where(behind.any(axis=1), behind.argmax(axis=1), np.inf).min())
    return np.array(counts)


def fewest_to_target(weights, bias, x, y_target, seconds=10):
    """The same for x to be classified as y_target (n,): (counts, bounds), float64 (n,).

    seconds: for each image.  The bounds are below the optimum, and equal counts where it was found.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import diags, hstack

    found, lines = [], constraints(weights, bias, y_target)
    for pixels, slopes, offsets in zip(x.reshape(len(x), -1), *lines, strict=True):
        d, one = len(pixels), diags(np.ones(len(pixels)))
        programme = milp(
            np.repeat([0, 1], d),
            integrality=np.repeat([0, 1], d),
            bounds=Bounds(np.repeat([-1, 0], d), 1),
            constraints=[
                LinearConstraint(np.hstack([slopes, 0 * slopes]), lb=-slopes @ pixels - offsets),
                LinearConstraint(hstack([one, diags(pixels)]), lb=0),
                LinearConstraint(hstack([one, diags(pixels - 1)]), ub=0),
            ],
            options={"time_limit": seconds},
        )
        best = np.inf if programme.fun is None else round(programme.fun)
        bound = programme.mip_dual_bound if programme.status != 2 else np.inf  # 2: infeasible
        found.append((best, np.ceil(bound - 1e-6)))
    return np.array(found).reshape(-1, 2).T
