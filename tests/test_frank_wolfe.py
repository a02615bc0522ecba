"""The smallest L∞ noise by many steps: against closed forms, linear programmes and one step."""

import keras
import numpy as np
import pytest

from common.networks import mnist
from logreg_softmax.linear_programme import smallest_linf
from method2_fgsm.smallest_eps import smallest_eps


def linear_model(weights, bias):
    """A Keras model with the logits x W + b."""
    model = keras.Sequential([keras.Input((weights.shape[0],)), keras.layers.Dense(len(bias))])
    model.layers[-1].set_weights([weights, bias])
    return model


def test_two_classes_of_a_linear_model_need_the_corner_that_the_formula_names():
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(30, 2)).astype(np.float32)
    bias = np.zeros(2, np.float32)
    # So far inside the cube that no pixel reaches its bound.
    x = rng.uniform(0.45, 0.55, (20, 30)).astype(np.float32)
    logits = x @ weights
    target = logits.argmin(axis=1)
    eps, x_adv = smallest_eps(linear_model(weights, bias), x, target, steps=60)
    # |z_0 - z_1| = eps Σ |w_0 - w_1|
    exact = np.abs(logits[:, 0] - logits[:, 1]) / np.abs(weights[:, 0] - weights[:, 1]).sum()
    np.testing.assert_allclose(eps, exact, rtol=2e-3, atol=2e-5)
    np.testing.assert_allclose(np.abs(x_adv - x).max(axis=1), eps, atol=1e-6)


def test_a_linear_model_of_many_classes_comes_close_to_the_linear_programme():
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(25, 6)).astype(np.float32)
    bias = rng.normal(size=6).astype(np.float32)
    x = rng.uniform(size=(12, 25)).astype(np.float32)
    target = ((x @ weights + bias).argmax(axis=1) + 1 + np.arange(12) % 5) % 6
    eps, _ = smallest_eps(linear_model(weights, bias), x, target, steps=500)
    exact, _, _ = smallest_linf(weights, bias, x, target)
    assert (eps >= exact - 1e-5).all()
    assert eps.mean() <= 1.005 * exact.mean()


@pytest.mark.parametrize("name", mnist.NAMES)
def test_many_steps_never_need_more_than_one_and_stay_within_what_they_say(name, trained, right):
    model = trained[name]
    x, y = right(model, 12)
    target = (y + 1 + np.arange(len(y)) % 9) % 10
    one, _ = smallest_eps(model, x, target)
    for steps in (2, 60):
        eps, x_adv = smallest_eps(model, x, target, steps=steps)
        reached = np.isfinite(eps)
        assert (eps[np.isfinite(one)] <= one[np.isfinite(one)] + 1e-6).all()
        assert (mnist.classify(model, x_adv)[reached] == target[reached]).all()
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1
        np.testing.assert_allclose(
            np.abs(x_adv - x).max(axis=(1, 2))[reached], eps[reached], atol=1e-6
        )
    assert reached.all()
    easier = np.isfinite(one)
    assert eps[easier].mean() < 0.9 * one[easier].mean()


def test_batch_and_order_change_nothing_but_rounding(trained, right):
    model = trained["mlp"]
    x, y = right(model, 9)
    target = (y + 3) % 10
    eps, _ = smallest_eps(model, x, target, steps=40)
    order = np.random.default_rng(0).permutation(len(x))
    again, _ = smallest_eps(model, x[order], target[order], steps=40, batch_size=4)
    np.testing.assert_allclose(again, eps[order], rtol=2e-2)


def test_max_eps_and_confidence_are_kept(trained, right):
    model = trained["mlp"]
    x, y = right(model, 10)
    target = (y + 5) % 10
    eps, _ = smallest_eps(model, x, target, steps=60)
    limit = float(np.median(eps))
    below, x_adv = smallest_eps(model, x, target, steps=60, max_eps=limit)
    reached = np.isfinite(below)
    assert reached.any()
    assert not reached.all()
    assert np.abs(x_adv - x).max() <= limit + 1e-6
    assert (x_adv[~reached] == x[~reached]).all()
    sure, x_adv = smallest_eps(model, x, target, steps=60, confidence=0.9)
    p = mnist.softmax(mnist.predict(model, x_adv))[np.arange(len(x)), target]
    assert (p > 0.9).all()
    assert (sure > eps).mean() > 0.8


def test_an_image_of_the_target_needs_nothing(trained, right):
    model = trained["softmax"]
    x, y = right(model, 5)
    eps, x_adv = smallest_eps(model, x, y, steps=20)
    assert (eps == 0).all()
    assert (x_adv == x).all()
