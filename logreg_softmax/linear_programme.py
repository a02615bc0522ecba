"""The smallest L∞ noise that makes a linear classifier see an image as its target, exactly.

    minimise ε   subject to   g_k(p) = z_t(p) - z_k(p) - lead ≥ 0 for k ≠ t,
                              |p - x|∞ ≤ ε,   0 ≤ p ≤ 1            (logits z = p W + b)

is a linear programme.  Multipliers λ ≥ 0 of its constraints, which sum to one, give a lower bound
(Boyd & Vandenberghe 2004, "Convex Optimization", section 5.2): with c = Σ λ_k (w_t - w_k),

    max Σ λ_k g_k(p) over the box  =  Σ λ_k g_k(x) + Σ_j |c_j| min(ε, room_j)

where room_j is how far pixel j can go in the direction of c_j.  The right side is concave and
piecewise linear in ε; before its root no p of the box meets all constraints.

For one constraint alone the root is the answer, and the sign step to it the noise.  Often the
constraint with the largest root leaves all others satisfied.  For the rest SciPy solves the
programme, and the bound of its multipliers certifies what it found.
"""

import numpy as np


def smallest_linf(weights, bias, x, y_target, *, lead=0.0):
    """The smallest eps over all noise of at most eps a pixel, and an image at that eps.

    weights (d, classes), bias (classes,), x (n, ...) with d pixels in [0, 1], y_target (n,).
    Returns (eps, p, bound), float64 (n,), like x, and (n,): bound is a lower bound of eps for
    all noise, and equals eps up to rounding.  Where no image in [0, 1] will do, eps and p are
    NaN and bound is infinite.
    """
    flat = x.reshape(len(x), -1).astype(np.float64)
    slopes, offsets = constraints(weights, bias, y_target)
    leads = np.einsum("nkd,nd->nk", slopes, flat) - lead + offsets

    # One competitor at a time: the largest root, and whether its sign step beats the others too.
    roots = np.stack([root(slopes[:, k], leads[:, k], flat) for k in range(slopes.shape[1])], 1)
    hardest = roots.argmax(axis=1)
    rows = np.arange(len(flat))
    bound = roots[rows, hardest]
    step = np.minimum(bound, 1)[:, np.newaxis] * np.sign(slopes[rows, hardest])
    p = np.clip(flat + step, 0, 1)
    missing = leads + np.einsum("nkd,nd->nk", slopes, p - flat)
    eps = np.where(np.isfinite(bound), bound, np.nan)
    p[~np.isfinite(bound)] = np.nan
    for i in np.flatnonzero(np.isfinite(bound) & (missing.min(axis=1) < -1e-12)):
        eps[i], p[i], bound[i] = _solve(slopes[i], leads[i], flat[i])
    return eps, p.reshape(x.shape), bound


def constraints(weights, bias, y_target):
    """z_t - z_k = slopes · x + offsets for all k ≠ t: float64 (n, k, d) and (n, k)."""
    weights, bias = weights.T.astype(np.float64), bias.astype(np.float64)
    others = np.array([np.delete(np.arange(len(bias)), t) for t in y_target], int)
    return (own[y_target][:, np.newaxis] - own[others] for own in (weights, bias))


def root(c, lead, x):
    """The first eps at which lead + Σ_j |c_j| min(eps, room_j) is at least zero.

    c and x (n, d), lead (n,).  Returns (n,) float64, infinite where there is none up to 1.
    """
    room = np.where(c > 0, 1 - x, x)
    order = np.argsort(room, axis=1)
    room, steepness = (np.take_along_axis(a, order, axis=1) for a in (room, np.abs(c)))
    # The slope behind each knot, where a pixel has used up its room, and the value at it.
    slope = np.cumsum(steepness[:, ::-1], axis=1)[:, ::-1]
    knots = np.concatenate([np.zeros((len(x), 1)), room], axis=1)
    rises = np.cumsum(slope * np.diff(knots, axis=1), axis=1)
    values = np.concatenate([lead[:, np.newaxis], lead[:, np.newaxis] + rises], axis=1)
    after = (values >= 0).argmax(axis=1)  # the first knot at or behind the root
    rows, before = np.arange(len(x)), np.maximum(after - 1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = knots[rows, before] - values[rows, before] / slope[rows, before]
    reached = (values >= 0).any(axis=1)
    return np.where(reached, np.where(after == 0, 0.0, inside), np.inf)


def _solve(slopes, leads, x):
    """The linear programme of one image, in (p, eps): (eps, p, bound)."""
    from scipy.optimize import linprog
    from scipy.sparse import bmat, identity

    d, unit, one = len(x), identity(len(x)), np.ones((len(x), 1))
    found = linprog(
        np.eye(d + 1)[d],  # eps
        A_ub=bmat([[-slopes, None], [unit, -one], [-unit, -one]], format="csc"),
        b_ub=np.concatenate([leads - slopes @ x, x, -x]),
        bounds=(0, 1),
        method="highs",
    )
    if found.status == 2:  # infeasible
        return np.nan, np.full(d, np.nan), np.inf
    multipliers = -found.ineqlin.marginals[: len(leads)]
    share = (multipliers / multipliers.sum())[np.newaxis]
    p = found.x[:d]
    return np.abs(p - x).max(), p, root(share @ slopes, share @ leads, x[np.newaxis])[0]
