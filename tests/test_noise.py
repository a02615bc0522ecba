"""Method 1: the noise stays in the box, reaches its target, and is as small as it should be."""

import keras
import numpy as np
import pytest
from scipy.optimize import minimize

from common.networks import mnist
from method1_noise_optimization import attack, lbfgs
from method1_noise_optimization.attack import sizes
from method2_fgsm.smallest_eps import smallest_eps


@pytest.fixture(scope="module")
def stubborn():
    """A classifier that says 0 whatever it sees."""
    model = mnist.build("softmax")
    model.set_weights([np.zeros((784, 10)), np.eye(10)[0]])
    return model


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, method) for name in ("softmax", "mlp") for method in attack.METHODS]
    + [("cnn", "sgd"), ("cnn", "minimal")],  # lbfgs there is the same at a hundred times the cost
)
def test_every_noise_reaches_its_target_inside_the_box(trained, few, name, method):
    x, y_target = few(trained[name], 8)
    # The CNN of the tests has seen little: gradient descent creeps on it.
    noise = attack.find_noise(trained[name], x, y_target, method=method, learning_rate=0.05)
    assert (mnist.classify(trained[name], np.clip(x + noise, 0, 1)) == y_target).all()
    assert attack.reached(trained[name], x, noise, y_target).all()


def test_minimal_is_smaller_than_lbfgs_is_smaller_than_sgd(trained, few):
    x, y_target = few(trained["mlp"], 12)
    mean = {
        method: sizes(attack.find_noise(trained["mlp"], x, y_target, method=method)).mean()
        for method in attack.METHODS
    }
    assert mean["minimal"] < mean["lbfgs"] < mean["sgd"]


def test_sgd_is_the_loop_over_single_images_that_it_replaces(trained, few):
    x, y_target = few(trained["softmax"], 8)
    weights, bias = (w.astype(np.float64) for w in trained["softmax"].get_weights())
    for name, slope in (
        ("none", lambda r: 0 * r),
        ("l1", lambda r: np.sign(r) / r.size),
        ("l2", lambda r: 2 * r / r.size),
    ):
        x_adv, steps = attack.search(
            trained["softmax"], x, y_target, regularization=name, learning_rate=0.05
        )
        for i in range(len(x)):
            pixels, r, taken = x[i].ravel().astype(np.float64), np.zeros(784), 0
            while True:
                moved = pixels + r
                logits = np.clip(moved, 0, 1) @ weights + bias
                if logits.argmax() == y_target[i]:
                    break
                p = np.exp(logits - logits.max())
                p /= p.sum()
                p[y_target[i]] -= 1
                inside = (moved >= 0) & (moved <= 1)
                r -= 0.05 * (inside * (weights @ p) + slope(r))
                taken += 1
            assert steps[i] == taken
            expected = np.clip(pixels + r, 0, 1) - pixels
            np.testing.assert_allclose((x_adv - x)[i].ravel(), expected, atol=2e-4)


def test_lbfgs_minimises_as_scipy_does(trained, few):
    model = trained["softmax"]
    x, y_target = few(model, 6)
    x = x.reshape(6, -1)
    c = np.float32([0.1, 0.3, 0.6, 0.1, 0.3, 0.6])
    p, _ = lbfgs.minimise(model, x, y_target, x, c, np.ones_like(c), max_steps=500)
    weights, bias = (w.astype(np.float64) for w in model.get_weights())

    def value_and_gradient(q, i):
        r = q - x[i]
        size = np.sqrt((r**2).sum() + lbfgs.KINK**2)
        logits = q @ weights + bias
        p = np.exp(logits - logits.max())
        loss = np.log(p.sum()) + logits.max() - logits[y_target[i]]
        p /= p.sum()
        p[y_target[i]] -= 1
        return c[i] * size + loss, c[i] * r / size + weights @ p

    for i in range(6):
        reference = minimize(
            value_and_gradient, x[i], args=(i,), jac=True, method="L-BFGS-B", bounds=[(0, 1)] * 784
        )
        ours = value_and_gradient(p[i].astype(np.float64), i)[0]
        assert ours == pytest.approx(reference.fun, rel=1e-3)
    assert p.min() >= 0
    assert p.max() <= 1


def test_lbfgs_looks_for_the_c_at_which_the_class_turns(trained, few):
    model = trained["mlp"]
    x, y_target = few(model, 10)
    noise = attack.find_noise(model, x, y_target, method="lbfgs")
    logits = mnist.predict(model, x + noise).astype(np.float64)
    chosen = logits[np.arange(10), y_target]
    logits[np.arange(10), y_target] = -np.inf
    # On the boundary: a slightly dearer noise would not have been enough.
    assert np.median(chosen - logits.max(axis=1)) < 0.1


def test_the_units_of_the_logits_do_not_matter():
    """Logits times a hundred, or a thousand larger, have the same borders."""
    network = keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.Dense(30, activation="tanh"),
            keras.layers.Dense(6),
        ]
    )
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(0, 2 / w.shape[0] ** 0.5, w.shape) for w in network.weights])
    x = rng.random((12, 20), np.float32)
    y = mnist.predict(network, x).argsort(axis=1)[:, -2]
    image, found = keras.Input((20,)), {}
    for scale, offset in ((1, 0), (0.01, 0), (100, 0), (1, 1000)):
        model = keras.Model(image, scale * network(image) + offset)
        for method in ("minimal", "lbfgs"):
            noise = attack.find_noise(model, x, y, method=method)
            assert attack.reached(model, x, noise, y).all()
            found.setdefault(method, []).append(sizes(noise).mean())
        eps, _ = smallest_eps(model, x, y, steps=60)
        found.setdefault("many steps", []).append(eps.mean())
    for means in found.values():
        np.testing.assert_allclose(means, means[0], rtol=0.01)


def test_less_than_the_minimal_noise_is_not_enough(trained, few):
    for name in ("softmax", "mlp"):
        x, y_target = few(trained[name], 30)
        noise = attack.find_noise(trained[name], x, y_target, method="minimal")
        assert not attack.reached(trained[name], x, 0.99 * noise, y_target).any()


@pytest.mark.parametrize("method", attack.METHODS)
def test_order_and_batch_size_change_nothing_but_rounding(trained, few, method):
    model = trained["softmax"]
    x, y_target = few(model, 30)
    settings = {"method": method, "starts": 3}
    noise = attack.find_noise(model, x, y_target, **settings)
    order = np.random.default_rng(0).permutation(30)
    other = attack.find_noise(model, x[order], y_target[order], batch_size=7, **settings)
    # lbfgs stops where the objective no longer falls, which rounding decides.
    tolerance = 0.02 if method == "lbfgs" else 1e-3
    np.testing.assert_allclose(sizes(noise)[order], sizes(other), rtol=tolerance)
    if method == "sgd":
        np.testing.assert_allclose(noise[order], other, atol=1e-4)


@pytest.mark.parametrize("method", attack.METHODS)
def test_a_target_out_of_reach_ends_and_is_told(stubborn, method):
    x = np.random.default_rng(0).random((5, 28, 28), np.float32)
    y_target = np.array([0, 1, 2, 3, 0])
    x_adv, steps = attack.search(stubborn, x, y_target, method=method)
    assert np.isfinite(x_adv).all()
    np.testing.assert_array_equal(
        attack.reached(stubborn, x, x_adv - x, y_target), [True, False, False, False, True]
    )
    assert steps.max() <= attack.MAX_STEPS[method]
    np.testing.assert_allclose(x_adv[[0, 4]], x[[0, 4]], atol=1e-6)


def test_a_learning_rate_at_which_the_noise_diverges_still_ends_in_the_box():
    """The step of the l2 term alone is r ← r - 100 · 2 r / 4, which grows 49 times each step."""
    model = keras.Sequential([keras.Input((2, 2)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.set_weights([np.float32([[1, -1]] * 4), np.float32([0, 9])])  # always says 1
    x = np.full((1, 2, 2), 0.5, np.float32)
    x_adv, steps = attack.search(model, x, np.array([0]), learning_rate=100, max_steps=100)
    assert steps == [100]
    assert ((x_adv >= 0) & (x_adv <= 1)).all()  # and so finite


def test_minimal_settles_where_linear_pieces_meet():
    """z_0 - z_1 = 2 (p_0 + p_1) - 4 |p_0 - p_1| - 2: the region is a wedge, its edge (½, ½)."""
    model = keras.Sequential(
        [
            keras.Input((2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="relu"),
            keras.layers.Dense(2),
        ]
    )
    model.set_weights(
        [
            np.float32([[1, -1, 1], [-1, 1, 1]]),
            np.zeros(3),
            np.float32([[-4, 0], [-4, 0], [2, 0]]),
            np.float32([-2, 0]),
        ]
    )
    x = np.random.default_rng(0).uniform(0, 0.35, (50, 2, 1)).astype(np.float32)
    target = np.zeros(50, int)
    noise = attack.find_noise(model, x, target, method="minimal")
    assert attack.reached(model, x, noise, target).all()
    # The gradient says nothing of the edge: it jumps from one side of the wedge to the other.
    np.testing.assert_allclose((x + noise).reshape(50, 2), 0.5, atol=0.06)
    np.testing.assert_allclose(sizes(noise).mean(), sizes(0.5 - x).mean(), rtol=0.05)
