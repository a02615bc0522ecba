"""The smallest epsilon is the first one along the sign step that reaches the target.

(tests/test_exact.py sets it beside the exact root on softmax regression.)
"""

import keras
import numpy as np
import pytest

from common.networks import mnist
from method2_fgsm import fgsm
from method2_fgsm import smallest_eps as search
from method2_fgsm.smallest_eps import smallest_eps


@pytest.mark.parametrize("name", mnist.NAMES)
def test_the_smallest_eps_flips_and_one_percent_less_does_not(trained, right, name):
    model = trained[name]
    x, _ = right(model, 20, source=2)
    target = np.full(20, 6)
    eps, x_adv = smallest_eps(model, x, target, tol=1e-5)
    found = np.isfinite(eps)
    assert found.any()
    assert (mnist.classify(model, x_adv[found]) == 6).all()
    np.testing.assert_array_equal(x_adv[~found], x[~found])
    sign = fgsm.gradient_signs(model, x, target)
    distance = np.nan_to_num(eps)[:, None, None]
    np.testing.assert_array_equal(x_adv, np.clip(x - distance * sign, 0, 1))
    less = np.clip(x - 0.99 * distance * sign, 0, 1)
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


def test_an_image_of_the_target_needs_nothing_and_an_unreachable_one_gets_nan():
    model = one_score(lambda m: m - 0.5)
    x = np.stack([np.full((28, 28), 0.7), np.zeros((28, 28)), np.zeros((28, 28))])
    eps, x_adv = smallest_eps(model, x, np.array([1, 1, 1]), max_eps=0.4)
    np.testing.assert_array_equal(eps, [0, np.nan, np.nan])
    np.testing.assert_array_equal(x_adv, x.astype(np.float32))
    eps, _ = smallest_eps(model, x, np.array([1, 1, 1]))
    np.testing.assert_allclose(eps, [0, 0.5, 0.5], atol=2e-4)


def test_more_confidence_needs_more_eps(trained, right):
    model = trained["softmax"]
    x, _ = right(model, 20, source=2)
    target = np.full(20, 6)
    enough, _ = smallest_eps(model, x, target)
    more, x_adv = smallest_eps(model, x, target, confidence=0.9)
    assert (more > enough).all()
    p = mnist.softmax(mnist.predict(model, x_adv))[:, 6]
    assert (p > 0.9).all()
    assert (p < 0.91).all()


def test_a_tolerance_below_the_spacing_of_float32_ends(trained, right):
    x, _ = right(trained["softmax"], 5, source=2)
    eps, _ = smallest_eps(trained["softmax"], x, np.full(5, 6), tol=1e-30)
    assert np.isfinite(eps).all()


def test_a_batch_is_no_larger_than_its_bytes(monkeypatch, trained, digits):
    sizes = []
    reached = search._reached

    def recorded(model, x, sign, y_target, confidence, eps):
        sizes.append(x[:1].nbytes * eps.size)
        return reached(model, x, sign, y_target, confidence, eps)

    monkeypatch.setattr(search, "_reached", recorded)
    monkeypatch.setattr(search, "BATCH_BYTES", 28 * 28 * 4 * 5)
    x, y = digits[0][:12], (digits[1][:12] + 1) % 10
    few, _ = smallest_eps(trained["softmax"], x, y)
    assert max(sizes) == 28 * 28 * 4 * 5
    many, _ = smallest_eps(trained["softmax"], x, y, batch_size=1000)
    np.testing.assert_array_equal(few, many)
