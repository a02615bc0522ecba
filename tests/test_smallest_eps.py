"""The smallest epsilon: by one step the first one that reaches the target, by many steps against
closed forms and linear programmes.

(tests/test_exact.py sets the one step beside the exact root on softmax regression.)
"""

from unittest import mock

import keras
import numpy as np
import pytest

from common.networks import mnist
from logreg_softmax.linear_programme import smallest_linf
from method2_fgsm import fgsm
from method2_fgsm import smallest_eps as search
from method2_fgsm.smallest_eps import smallest_eps, within_eps


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_smallest_eps_flips_and_a_little_less_does_not(trained, right, name):
    model = trained[name]
    x, _ = right(model, 12, source=2)
    target = np.full(12, 6)
    eps, x_adv = smallest_eps(model, x, target)
    found = np.isfinite(eps)
    assert found.any()
    assert (mnist.classify(model, x_adv[found]) == 6).all()
    np.testing.assert_array_equal(x_adv[~found], x[~found])
    sign = fgsm.gradient_signs(model, x, target)
    distance = np.nan_to_num(eps)[:, None, None]
    np.testing.assert_array_equal(x_adv, np.clip(x - distance * sign, 0, 1))
    less = np.clip(x - (distance - 1.1e-4) * sign, 0, 1)
    assert (mnist.classify(model, less[found]) != 6).all()


def one_score(score):
    """A model whose class 1 has the logit score(mean pixel) and whose other classes have 0."""
    image = keras.Input((28, 28))
    mean = keras.ops.mean(image, axis=(1, 2))
    zeros = keras.ops.zeros_like(keras.ops.repeat(mean[:, None], 10, axis=1))
    second = keras.ops.one_hot(keras.ops.zeros_like(mean, dtype="int32") + 1, 10)
    return keras.Model(image, zeros + second * score(mean)[:, None])


def test_the_first_crossing_is_found_where_success_comes_and_goes():
    """The target is reached from 0.2 to 0.21, lost, and reached again from 0.6 on."""
    relu = keras.ops.relu
    model = one_score(
        lambda m: -1 + 5 * m + 100 * (-relu(m - 0.205) + relu(m - 0.22)) + 200 * relu(m - 0.58)
    )
    eps, x_adv = smallest_eps(model, np.zeros((2, 28, 28)), np.array([1, 1]))
    np.testing.assert_allclose(eps, 0.2, atol=1.5e-4)
    np.testing.assert_allclose(x_adv, 0.2, atol=1.5e-4)


@pytest.mark.parametrize("steps", [1, 20])
def test_an_image_of_the_target_needs_nothing_and_an_unreachable_one_gets_nan(steps):
    model = one_score(lambda m: m - 0.5)
    x = np.stack([np.full((28, 28), 0.7), np.zeros((28, 28)), np.zeros((28, 28))])
    eps, x_adv = smallest_eps(model, x, np.array([1, 1, 1]), max_eps=0.4, steps=steps)
    np.testing.assert_array_equal(eps, [0, np.nan, np.nan])
    np.testing.assert_array_equal(x_adv, x.astype(np.float32))
    eps, _ = smallest_eps(model, x, np.array([1, 1, 1]), steps=steps)
    np.testing.assert_allclose(eps, [0, 0.5, 0.5], atol=2e-4)


def test_more_confidence_needs_more_eps(trained, right):
    model = trained["softmax"]
    x, _ = right(model, 12, source=2)
    target = np.full(12, 6)
    for steps in (1, 40):
        enough, _ = smallest_eps(model, x, target, steps=steps)
        more, x_adv = smallest_eps(model, x, target, confidence=0.9, steps=steps)
        assert (more > enough).all()
        p = mnist.softmax(mnist.predict(model, x_adv))[:, 6]
        assert (p > 0.9).all()
        assert (p < 0.95).all()


def test_a_batch_is_no_larger_than_its_bytes(monkeypatch, trained, few):
    x, target = few(trained["softmax"], 12)
    at_once, _ = smallest_eps(trained["softmax"], x, target)
    monkeypatch.setattr(mnist, "MOST_BYTES", 28 * 28 * 4 * 5)
    with mock.patch.object(search, "_reached", wraps=search._reached) as reached:
        by_five, _ = smallest_eps(trained["softmax"], x, target)
    assert max(call.args[-1].size for call in reached.call_args_list) == 5
    np.testing.assert_array_equal(by_five, at_once)


def linear_model(weights, bias):
    """A Keras model with the logits x W + b."""
    model = keras.Sequential([keras.Input((weights.shape[0],)), keras.layers.Dense(len(bias))])
    model.layers[-1].set_weights([weights, bias])
    return model


def test_two_classes_of_a_linear_model_need_the_corner_that_the_formula_names():
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(30, 2)).astype(np.float32)
    # So far inside the cube that no pixel reaches its bound.
    x = rng.uniform(0.45, 0.55, (20, 30)).astype(np.float32)
    logits = x @ weights
    model = linear_model(weights, np.zeros(2, np.float32))
    eps, x_adv = smallest_eps(model, x, logits.argmin(axis=1), steps=60)
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


def test_many_steps_need_less_than_one_and_stay_within_what_they_say(trained, few):
    model = trained["mlp"]
    x, target = few(model, 12)
    one, _ = smallest_eps(model, x, target)
    for steps in (2, 60):
        eps, x_adv = smallest_eps(model, x, target, steps=steps)
        reached = np.isfinite(eps)
        assert (eps[np.isfinite(one)] <= one[np.isfinite(one)] + 1e-6).all()
        assert (mnist.classify(model, x_adv)[reached] == target[reached]).all()
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1
        size = np.abs(x_adv - x).max(axis=(1, 2))
        np.testing.assert_allclose(size[reached], eps[reached], atol=1e-6)
    assert reached.all()
    easier = np.isfinite(one)
    assert eps[easier].mean() < 0.9 * one[easier].mean()
    order = np.random.default_rng(0).permutation(len(x))
    again, _ = smallest_eps(model, x[order], target[order], steps=60, batch_size=5)
    np.testing.assert_allclose(again, eps[order], rtol=2e-2)
    # Within a limit that some do not reach.
    limit = float(np.median(eps))
    x_adv = within_eps(model, x, target, limit, steps=60)
    stays = (x_adv == x).all(axis=(1, 2))
    assert 0 < stays.sum() < len(x)
    assert np.abs(x_adv - x).max() <= limit + 1e-6
    assert (mnist.classify(model, x_adv)[~stays] == target[~stays]).all()
    np.testing.assert_array_equal(within_eps(model, x, target, 0, steps=60), x)
