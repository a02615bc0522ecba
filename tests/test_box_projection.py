"""The projection onto linear constraints inside the box is the nearest point, and proves it."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import minimize

from common.search.box_projection import project, project_onto_one

STEPS = 60


def solve(c, A, b, dtype=tf.float64, steps=STEPS):
    c, A, b = (tf.constant(array, dtype) for array in (c, A, b))
    return (part.numpy() for part in project(c, A, b, tf.zeros_like(b), steps))


def problems(n, d, m):
    """Random programmes that have a solution: one point of the box satisfies the constraints."""
    rng = np.random.default_rng(0)
    c = rng.uniform(0, 1, (n, d)) * (rng.random((n, d)) < 0.6)  # many pixels on the bound
    A = rng.normal(size=(n, m, d))
    inside = rng.uniform(0, 1, (n, d))
    return c, A, np.einsum("nmd,nd->nm", A, inside) - rng.uniform(0, 0.3, (n, m))


def test_the_point_agrees_with_scipy():
    c, A, b = problems(20, 8, 4)
    p, mu, _ = solve(c, A, b)
    assert (mu > 1e-6).sum(axis=1).max() >= 2  # corners are among them
    for i in range(len(c)):
        reference = minimize(
            lambda q, c=c[i]: (((q - c) ** 2).sum() / 2, q - c),
            np.full(8, 0.5),
            jac=True,
            bounds=[(0, 1)] * 8,
            constraints={"type": "ineq", "fun": lambda q, A=A[i], b=b[i]: A @ q - b},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(p[i], reference.x, atol=1e-6)


def test_the_gap_to_the_dual_closes_and_the_constraints_hold():
    c, A, b = problems(50, 784, 9)
    b += 8  # so that most of the nine matter
    p, mu, dual = solve(c, A, b)
    primal = ((p - c) ** 2).sum(axis=1) / 2
    assert (mu >= 0).all()
    assert p.min() >= 0
    assert p.max() <= 1
    np.testing.assert_allclose(primal, dual, rtol=1e-12)
    assert (b - np.einsum("nmd,nd->nm", A, p)).max() < 1e-10
    assert primal.min() > 0.01
    rounded, _, _ = solve(c, A, b, tf.float32)
    np.testing.assert_allclose(rounded, p, atol=2e-4)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_one_constraint_alone_gives_the_same_point(dtype):
    c, A, b = problems(50, 784, 1)
    b += 8
    p, mu, _ = solve(c, A, b)
    one = (tf.constant(array, dtype) for array in (c, A[:, 0], b, np.zeros_like(b)))
    point, multiplier = project_onto_one(*one, STEPS)
    rtol, atol = (1e-12, 1e-12) if dtype is tf.float64 else (1e-4, 2e-4)
    np.testing.assert_allclose(point, p, atol=atol)
    np.testing.assert_allclose(multiplier, mu, rtol=rtol)


def test_steps_onto_one_constraint_never_go_too_far():
    c, A, b = problems(50, 784, 1)
    b += 8
    _, exact, _ = solve(c, A, b)
    c, a, b = (tf.constant(array, tf.float64) for array in (c, A[:, 0], b))
    for start in (np.zeros_like(exact), 3 * exact):
        reached = [
            project_onto_one(c, a, b, tf.constant(start), steps)[1].numpy() for steps in range(1, 8)
        ]
        for before, after in itertools.pairwise(reached):
            assert (after >= before * (1 - 1e-12)).all()
            assert (after <= exact * (1 + 1e-9)).all()
        np.testing.assert_allclose(reached[-1], exact, rtol=1e-6)


def test_a_point_that_satisfies_everything_is_left_alone_and_none_is_told_by_the_dual():
    c, A, _ = problems(5, 20, 3)
    p, mu, dual = solve(c, A, np.einsum("nmd,nd->nm", A, c) - 1)
    np.testing.assert_array_equal(p, c)
    assert not mu.any()
    assert not dual.any()
    p, _, dual = solve(c, A, np.full((5, 3), 1e3))
    assert (dual > 10).all()
    assert np.isfinite(p).all()
    p, _, _ = solve(c, 0 * A, np.full((5, 3), 1.0), tf.float32)
    np.testing.assert_allclose(p, c, rtol=1e-6)


@pytest.mark.parametrize("size", [0, 1e-6, 1e6])
@pytest.mark.parametrize(("dtype", "atol"), [(tf.float64, 1e-9), (tf.float32, 1e-5)])
def test_constraints_that_are_alike_or_do_not_count_change_nothing(size, dtype, atol):
    """Whatever the scale of their numbers; where all are zero the point itself is nearest."""
    rng = np.random.default_rng(2)
    c, a = rng.uniform(0, 1, (5, 30)), rng.normal(size=(5, 1, 30))
    b = (a * c[:, np.newaxis]).sum(axis=2) + 0.5
    once, _, _ = solve(c, a, b) if size else (c, None, None)
    for count in (1, 100):
        same = np.repeat(size * a, count, axis=1), np.repeat(size * b, count, axis=1)
        none = np.zeros((5, 100, 30)), np.full((5, 100), -1.0)  # constraints that do not count
        A, limits = (np.concatenate(pair, axis=1) for pair in zip(same, none, strict=True))
        p, mu, _ = solve(c, A, limits, dtype)
        np.testing.assert_allclose(p, once, atol=atol)
        assert ((mu >= 0) & np.isfinite(mu)).all()
