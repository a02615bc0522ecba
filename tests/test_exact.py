"""The exact answers for a linear classifier: optimal, certified, and the yardstick of the rest.

And the projection onto linear constraints inside the box: the nearest point, with its proof.
"""

import itertools
import re

import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import linprog, minimize

from common import generate_5k
from common.networks import mnist
from common.search.box_projection import project, project_onto_one
from logreg_softmax import exact
from logreg_softmax.linear_programme import smallest_linf
from method1_noise_optimization import attack
from method1_noise_optimization.attack import sizes
from method2_fgsm import fgsm
from method2_fgsm.smallest_eps import smallest_eps


def lead(weights, bias, points, y_target):
    """z_t less the largest other logit, in float64."""
    logits = points.reshape(len(points), -1).astype(np.float64) @ weights + bias
    chosen = logits[np.arange(len(points)), y_target]
    logits[np.arange(len(points)), y_target] = -np.inf
    return chosen - logits.max(axis=1)


@pytest.fixture
def task(trained, few):
    """Softmax regression, its weights and biases, 30 digits and their targets."""
    model = trained["softmax"]
    return model, [array.astype(np.float64) for array in model.get_weights()], *few(model, 30)


def test_the_smallest_noise_is_certified_and_just_enough_and_no_method_beats_it(task):
    model, weights, x, y_target = task
    noise, bound = exact.smallest_noise(*weights, x, y_target)
    optimum = np.linalg.norm(noise.reshape(30, -1), axis=1)
    assert np.abs(optimum / bound - 1).max() < 1e-10
    assert (x + noise).min() >= 0
    assert (x + noise).max() <= 1
    assert lead(*weights, x + noise, y_target).min() > -1e-10
    assert lead(*weights, x + 0.999 * noise, y_target).max() < 0
    for method in ("sgd", "lbfgs", "fewest", "minimal"):
        found = attack.find_noise(model, x, y_target, method=method)
        assert attack.reached(model, x, found, y_target).all()
        assert (sizes(found) >= optimum * (1 - 1e-6)).all(), method
    np.testing.assert_allclose(sizes(found), optimum, rtol=5e-3)  # of minimal, the last
    assert sizes(found).mean() <= 1.001 * optimum.mean()


def test_a_target_out_of_reach_has_no_noise_and_no_epsilon():
    weights, bias = np.zeros((784, 10)), np.eye(10)[0]
    x = np.random.default_rng(0).random((2, 28, 28))
    noise, bound = exact.smallest_noise(weights, bias, x, np.array([1, 2]))
    assert np.isnan(noise).all()
    assert np.isinf(bound).all()
    sign = np.ones((2, 28, 28))
    assert np.isnan(exact.smallest_eps(weights, bias, x, np.array([1, 2]), sign)).all()


def test_the_smallest_epsilon_is_the_first_on_a_fine_grid():
    rng = np.random.default_rng(5)
    weights, bias = rng.normal(size=(6, 3)), rng.normal(size=3)
    x, sign = rng.random((200, 6)), np.sign(rng.normal(size=(200, 6)))
    sign[:, 0] = 0
    y_target = rng.integers(0, 3, 200)
    eps = exact.smallest_eps(weights, bias, x, y_target, sign)
    grid = np.linspace(0, 1, 4001)
    for i in range(200):
        moved = np.clip(x[i] - grid[:, None] * sign[i], 0, 1)
        good = np.flatnonzero(lead(weights, bias, moved, np.full(4001, y_target[i])) >= 0)
        if len(good):
            assert eps[i] <= grid[good[0]] + 1e-12
        if np.isfinite(eps[i]):
            at = np.clip(x[i] - eps[i] * sign[i], 0, 1)[None]
            assert lead(weights, bias, at, y_target[[i]])[0] > -1e-12
            # The grid may step over a narrow stretch of success, but finds none earlier.
            assert not (grid[good] < eps[i] - 1e-12).any()
    assert 50 < np.isfinite(eps).sum() < 200


def test_fgsm_finds_the_smallest_epsilon(task):
    model, weights, x, y_target = task
    sign = fgsm.gradient_signs(model, x, y_target)
    eps = exact.smallest_eps(*weights, x, y_target, sign)
    found, _ = smallest_eps(model, x, y_target)
    both = np.isfinite(eps) & np.isfinite(found)
    assert both.mean() > 0.7
    assert (found[both] >= eps[both] - 1e-5).all()
    assert np.median(found[both] - eps[both]) < 2e-4


@pytest.mark.slow
def test_the_script_measures_the_methods_and_draws_the_figure(
    trained, tmp_path, capsys, monkeypatch
):
    generate_5k.main([])
    monkeypatch.setattr(mnist, "load", trained.get)
    written = exact.main(["--limit", "8", "--output", str(tmp_path / "exact.png")])
    assert written[0].read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    # The pattern is an ascent direction of z_6 - z_2 for every image at once.
    table = re.findall(r"^0\.\d +([\d.]+)% +([\d.]+)%$", out, re.M)
    seen, left = np.array(table, float).T
    assert (np.diff(seen) >= 0).all()
    assert (seen <= left).all()
    assert seen[-1] > 95


# The smallest epsilon over all noise --------------------------------------------------------------


def test_the_smallest_linf_noise_agrees_with_the_whole_linear_programme():
    rng = np.random.default_rng(5)
    weights, bias = rng.normal(size=(4, 7)), rng.normal(size=7)
    x = rng.uniform(0, 1, (30, 4)) * (rng.random((30, 4)) < 0.6)
    y_target = np.argsort(x @ weights + bias, axis=1)[:, 2]
    eps, p, bound = smallest_linf(weights, bias, x, y_target)
    one, unit, zero = np.ones((4, 1)), np.eye(4), np.zeros((6, 1))
    for i, t in enumerate(y_target):
        slopes = np.delete(weights[:, [t]] - weights, t, axis=1).T
        offsets = np.delete(bias[t] - bias, t)
        rows = np.block([[-slopes, zero], [unit, -one], [-unit, -one]])
        limits = np.concatenate([offsets, x[i], -x[i]])
        whole = linprog(np.eye(5)[4], A_ub=rows, b_ub=limits, bounds=(0, 1), method="highs-ipm")
        if whole.status == 2:
            assert np.isinf(bound[i])
            assert np.isnan(eps[i])
        else:
            np.testing.assert_allclose([eps[i], bound[i]], whole.fun, atol=1e-7)
    found = np.isfinite(bound)
    assert 10 <= found.sum() < 30
    assert (lead(weights, bias, p[found], y_target[found]) > -1e-9).all()


def test_no_attack_needs_less_than_the_smallest_linf_noise(task):
    model, weights, x, y_target = task
    optimum, p, bound = smallest_linf(*weights, x, y_target)
    np.testing.assert_allclose(bound, optimum, rtol=1e-9)
    np.testing.assert_allclose(np.abs(p - x).max(axis=(1, 2)), optimum, atol=1e-12)
    assert lead(*weights, p, y_target).min() > -1e-9
    for steps in (1, 100):
        eps, _ = smallest_eps(model, x, y_target, steps=steps)
        assert (eps[np.isfinite(eps)] >= optimum[np.isfinite(eps)] * (1 - 1e-5)).all()
    assert eps.mean() <= 1.01 * optimum.mean()


# The projection -----------------------------------------------------------------------------------

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


def test_steps_onto_one_constraint_never_go_too_far_and_end_at_the_same_point():
    c, A, b = problems(50, 784, 1)
    b += 8
    p, mu, _ = solve(c, A, b)
    arrays = c, A[:, 0], b, np.zeros_like(b)
    for dtype, rtol, atol in ((tf.float64, 1e-12, 1e-12), (tf.float32, 1e-4, 2e-4)):
        c, a, b, start = (tf.constant(array, dtype) for array in arrays)
        point, multiplier = project_onto_one(c, a, b, start, STEPS)
        np.testing.assert_allclose(point, p, atol=atol)
        np.testing.assert_allclose(multiplier, mu, rtol=rtol)
    c, a, b = (tf.constant(array, tf.float64) for array in arrays[:3])
    for start in (np.zeros_like(mu), 3 * mu):
        reached = [
            project_onto_one(c, a, b, tf.constant(start), steps)[1].numpy() for steps in range(1, 8)
        ]
        for before, after in itertools.pairwise(reached):
            assert (after >= before * (1 - 1e-12)).all()
            assert (after <= mu * (1 + 1e-9)).all()
        np.testing.assert_allclose(reached[-1], mu, rtol=1e-6)


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
def test_constraints_that_are_alike_or_do_not_count_change_nothing(size):
    """Whatever the scale of their numbers; where all are zero the point itself is nearest."""
    rng = np.random.default_rng(2)
    c, a = rng.uniform(0, 1, (5, 30)), rng.normal(size=(5, 1, 30))
    b = (a * c[:, np.newaxis]).sum(axis=2) + 0.5
    once, _, _ = solve(c, a, b) if size else (c, None, None)
    for count in (1, 100):
        same = np.repeat(size * a, count, axis=1), np.repeat(size * b, count, axis=1)
        none = np.zeros((5, 100, 30)), np.full((5, 100), -1.0)  # constraints that do not count
        A, limits = (np.concatenate(pair, axis=1) for pair in zip(same, none, strict=True))
        for dtype, atol in ((tf.float64, 1e-9), (tf.float32, 1e-5)):
            p, mu, _ = solve(c, A, limits, dtype)
            np.testing.assert_allclose(p, once, atol=atol)
            assert ((mu >= 0) & np.isfinite(mu)).all()
