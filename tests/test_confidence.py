"""Noise after which the network is as sure as asked, against exact optima of linear networks."""

import keras
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from common.networks import mnist
from method1_noise_optimization import attack
from method1_noise_optimization.attack import find_noise, reached

CLASSES = 10


def linear(rng, shape=(4, 4), scale=2.0, classes=CLASSES):
    """A softmax regression with random weights, W (d, classes) and b besides."""
    model = keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(classes)]
    )
    W, b = rng.normal(0, scale, (int(np.prod(shape)), classes)), rng.normal(0, 0.5, classes)
    model.set_weights([W, b])
    return model, *(part.astype(np.float32).astype(np.float64) for part in (W, b))


def log_odds(z, t):
    return z[t] - logsumexp(np.delete(z, t))


def optimum(x, W, b, t, confidence):
    """|r|_2 of the nearest point of the cube at which p_t > confidence and t is ahead: SLSQP."""
    needed = np.log(confidence / (1 - confidence))

    def slack(p):
        z = p @ W + b
        return np.append(z[t] - np.delete(z, t), log_odds(z, t) - needed)

    best = np.inf
    for start in (x, np.clip(x + W[:, t], 0, 1)):
        found = minimize(
            lambda p: ((p - x) ** 2).sum(),
            start,
            jac=lambda p: 2 * (p - x),
            bounds=[(0, 1)] * len(x),
            constraints={"type": "ineq", "fun": slack},
            options={"maxiter": 500, "ftol": 1e-12},
        )
        if found.success and slack(found.x).min() > -1e-6:
            best = min(best, found.fun**0.5)
    return best


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(5)
    model, W, b = linear(rng)
    x = rng.random((7, 4, 4)).astype(np.float32)
    return model, W, b, x, mnist.classify(model, x)


def probabilities(x_adv, W, b):
    return softmax(x_adv.reshape(len(x_adv), -1).astype(np.float64) @ W + b, axis=1)


@pytest.mark.parametrize("confidence", [0.3, 0.9])
def test_minimal_finds_the_nearest_point_that_is_sure_enough(task, confidence):
    model, W, b, x, y = task
    rows, y_target = np.arange(len(x)), (y + 1 + np.arange(len(x))) % CLASSES
    flat = x.reshape(len(x), -1).astype(np.float64)
    exact = [[optimum(p, W, b, t, confidence) for t in range(CLASSES)] for p in flat]
    exact = np.array(exact)
    exact[rows, y] = np.inf
    settings = {"method": "minimal", "starts": attack.STARTS, "confidence": confidence}

    best, noise = exact[rows, y_target], find_noise(model, x, y_target, **settings)
    hit = reached(model, x, noise, y_target, confidence=confidence)
    np.testing.assert_array_equal(hit, np.isfinite(best))
    assert hit.sum() >= 5
    np.testing.assert_allclose(attack.sizes(noise)[hit], best[hit], rtol=2e-3)
    assert (probabilities(x + noise, W, b)[rows, y_target] > confidence)[hit].all()

    best, noise = exact.min(axis=1), find_noise(model, x, y, targeted=False, **settings)
    hit = reached(model, x, noise, y, targeted=False, confidence=confidence)
    np.testing.assert_array_equal(hit, np.isfinite(best))
    assert (probabilities(x + noise, W, b).max(axis=1) > confidence)[hit].all()
    # Of all classes the best is not always looked at long enough.
    share = attack.sizes(noise)[hit] / best[hit]
    assert share.min() > 1 - 1e-5
    assert (share < 1.002).sum() >= hit.sum() - 1


@pytest.mark.parametrize("method", ["sgd", "lbfgs"])
def test_the_other_methods_stop_where_the_target_is_sure_enough(task, method):
    model, W, b, x, y = task
    y_target, confidence = (y + 1) % CLASSES, 0.9
    flat = x.reshape(len(x), -1).astype(np.float64)
    best = [optimum(p, W, b, t, confidence) for p, t in zip(flat, y_target, strict=True)]
    noise = find_noise(model, x, y_target, method=method, confidence=confidence)
    hit = reached(model, x, noise, y_target, confidence=confidence)
    p = probabilities(x + noise, W, b)[np.arange(len(x)), y_target]
    print(p, attack.sizes(noise) / best, hit)


def test_what_is_the_nearest_of_digits_is_proven(trained, few):
    """The log odds of a linear network are concave: where they are linearised they are not below,
    and so the projection onto that half space is nearer than any point that is sure enough."""
    x, y_target = few(trained["softmax"], 10)
    W, b = (part.astype(np.float64) for part in trained["softmax"].get_weights())
    noise = find_noise(trained["softmax"], x, y_target, method="minimal", starts=8, confidence=0.9)
    assert reached(trained["softmax"], x, noise, y_target, confidence=0.9).all()
    for image, r, t in zip(x, noise, y_target, strict=True):
        x0 = image.ravel().astype(np.float64)
        p = x0 + r.ravel()
        z = p @ W + b
        weights = softmax(np.where(np.arange(CLASSES) == t, -np.inf, z))
        G = W[:, t] - W @ weights
        needed = np.log(9) - log_odds(z, t) + G @ p
        low, high = 0.0, 1e3
        for _ in range(200):  # the multiplier of the half space
            middle = (low + high) / 2
            nearest = np.clip(x0 + middle * G, 0, 1)
            low, high = (middle, high) if G @ nearest < needed else (low, middle)
        bound = np.linalg.norm(nearest - x0)
        print(np.linalg.norm(r) / bound)
        assert bound * (1 - 1e-5) <= np.linalg.norm(r) <= 1.002 * bound
