"""The point nearest to an image that satisfies a few linear constraints inside the pixel box.

    minimise  ½ |p - c|²   subject to   A p ≥ b,   0 ≤ p ≤ 1

for a batch of images c (n, d), each with its own few constraints A (n, m, d), b (n, m).  This
quadratic programme has d variables and m constraints, its dual m variables, one multiplier
μ ≥ 0 a constraint (nine where a digit is to become another), because for given multipliers the
best p is known (Boyd & Vandenberghe 2004, "Convex Optimization", section 5.2):

    p(μ) = clip(c + Aᵀμ, 0, 1)        D(μ) = ½ |p(μ) - c|² + μ·(b - A p(μ))        ∇D = b - A p(μ)

D is concave and piecewise quadratic; it is maximised by Newton's method on the multipliers that
are not held at zero (the two-metric projection of Bertsekas 1982, "Projected Newton Methods for
Optimization Problems with Simple Constraints").  D(μ) is a lower bound on the programme's
optimum for every μ ≥ 0, so ½ |p - c|² - D(μ) certifies how good a feasible p is.
"""

import tensorflow as tf

# Multipliers of a programme without a solution grow without bound; those of the programmes met
# here stay far below this.
LARGEST_MULTIPLIER = 1e8


@tf.function(reduce_retracing=True)
def project(c, A, b, mu, steps):
    """Solve the programme above, starting from the multipliers `mu`, in at most `steps` steps.

    c (n, d), A (n, m, d), b (n, m), mu (n, m): tensors of one dtype, float32 or float64; the
    rows of the batch are independent.  A constraint that does not count has A = 0 and b < 0.
    steps: an integer; 2 from a good start, 50 for the exact solution in float64.
    Returns (p, mu, dual): the point (n, d) inside the box, the multipliers, and D(μ) (n,).
    Where no point of the box satisfies the constraints, D grows without bound: p then is what
    the last step came to, and dual exceeds d / 2, which no programme with a solution can.
    """
    eps = 1e-6 if c.dtype == tf.float32 else 1e-13
    p, slope, dual = _dual(c, A, b, mu)
    # Added to the diagonal: without it, two equal constraints would make the matrix singular.
    scale = eps * (tf.reduce_sum(A * A, axis=2) + eps)
    unit = tf.eye(tf.shape(A)[1], dtype=c.dtype)
    improving, step = tf.constant(True), tf.constant(0)
    while improving and step < steps:
        step += 1
        # A multiplier at zero whose slope is negative stays at zero; the others take a Newton step.
        moving = tf.cast((mu > 0) | (slope > 0), c.dtype)
        inside = tf.cast((p > 0) & (p < 1), c.dtype)
        curvature = tf.matmul(A * inside[:, tf.newaxis], A, transpose_b=True)
        curvature *= moving[:, :, tf.newaxis] * moving[:, tf.newaxis]
        curvature += unit * (1 - moving + scale)[:, tf.newaxis]
        newton = tf.linalg.solve(curvature, (slope * moving)[..., tf.newaxis])[..., 0]

        length = tf.ones_like(dual)
        new_mu = tf.clip_by_value(mu + newton, 0, LARGEST_MULTIPLIER)
        new_p, new_slope, new_dual = _dual(c, A, b, new_mu)
        # D may not fall, by more than its own rounding.
        floor = dual - eps * (1 + tf.abs(dual))
        halving = 0
        while halving < 12 and tf.reduce_any(new_dual < floor):
            halving += 1
            length = tf.where(new_dual < floor, length / 4, length)
            new_mu = tf.clip_by_value(mu + length[:, tf.newaxis] * newton, 0, LARGEST_MULTIPLIER)
            new_p, new_slope, new_dual = _dual(c, A, b, new_mu)
        improving = tf.reduce_any(new_dual - dual > 2 * eps * (1 + tf.abs(dual)))
        p, mu, slope, dual = new_p, new_mu, new_slope, new_dual
    return p, mu, dual


def project_onto_one(c, a, b, mu, steps):
    """`project` onto a single constraint a·p ≥ b, for c inside the box: no matrix, no line search.

    As μ grows from zero, pixels only come to a stop at the edge of the box, so ∇D falls ever more
    slowly: it is convex.  Newton's step with the slope on its right then never goes too far, and
    from the second on each comes nearer.  c, a (n, d), b, mu (n, 1); steps is a Python integer.
    Returns (p, mu) alone.
    """
    squares, towards_one = a * a, a > 0
    eps = 1e-6 if c.dtype == tf.float32 else 1e-13
    scale = eps * (tf.reduce_sum(squares, axis=1, keepdims=True) + eps)
    for _ in range(steps):
        free = c + mu * a
        slope = b - tf.reduce_sum(a * tf.clip_by_value(free, 0, 1), axis=1, keepdims=True)
        moving = tf.where(tf.where(towards_one, free < 1, free > 0), squares, 0)
        curvature = tf.reduce_sum(moving, axis=1, keepdims=True)
        mu = tf.clip_by_value(mu + slope / (curvature + scale), 0, LARGEST_MULTIPLIER)
    return tf.clip_by_value(c + mu * a, 0, 1), mu


def _dual(c, A, b, mu):
    """p(μ), ∇D(μ) and D(μ)."""
    p = tf.clip_by_value(c + tf.einsum("nmd,nm->nd", A, mu), 0, 1)
    slope = b - tf.linalg.matvec(A, p)
    return p, slope, tf.reduce_sum((p - c) ** 2, 1) / 2 + tf.reduce_sum(mu * slope, 1)
