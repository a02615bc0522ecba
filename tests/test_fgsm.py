"""The fast gradient sign method does what Goodfellow et al. (2015) wrote down."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import models
from method2_fgsm import fgsm, pgd


def cross_entropy(logits, y):
    """J = -log p_y, in float64."""
    logits = np.asarray(logits, np.float64)
    top = logits.max(axis=1)
    return np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - logits[np.arange(len(y)), y]


@pytest.mark.parametrize("targeted", [False, True])
def test_on_softmax_regression_it_is_the_closed_form(trained, right, targeted):
    model = trained["softmax"]
    x, y = right(model, 200)
    labels = (y + 1) % 10 if targeted else y
    weights, bias = (w.astype(np.float64) for w in model.get_weights())
    logits = x.reshape(-1, 784) @ weights + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    gradient = ((p - np.eye(10)[labels]) @ weights.T).reshape(x.shape)  # of -log p_y
    sure = np.abs(gradient) > 1e-6 * np.abs(gradient).max()  # where the sign is not rounding
    expected = np.clip(x + (-0.2 if targeted else 0.2) * np.sign(gradient), 0, 1)
    x_adv = fgsm.fgsm(model, x, labels, 0.2, targeted=targeted)
    assert sure.mean() > 0.99
    np.testing.assert_allclose(x_adv[sure], expected[sure], atol=1e-6)


@pytest.mark.parametrize("name", models.NAMES)
def test_the_gradient_agrees_with_finite_differences(name):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("float64")
        keras.utils.set_random_seed(1)
        model = models.build(name)
    finally:
        keras.config.set_dtype_policy(before)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0.2, 0.8, (3, 28, 28)), np.array([1, 7, 4])
    sign = fgsm.gradient_sign(model, tf.constant(x), y).numpy()
    step = 1e-6
    for row, column in rng.integers(4, 24, (25, 2)):
        nudge = np.zeros_like(x)
        nudge[:, row, column] = step
        ahead, back = (cross_entropy(model(tf.constant(x + s * nudge)).numpy(), y) for s in (1, -1))
        slope = (ahead - back) / (2 * step)
        clear = np.abs(slope) > 1e-7
        assert (sign[:, row, column] == np.sign(slope))[clear].all()


def test_the_ascent_is_the_gradient_of_the_cross_entropy_over_one_minus_p():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(6, 10)), np.arange(6)
    p = models.softmax(logits)
    p_y = p[np.arange(6), y]
    expected = (p - np.eye(10)[y]) / (1 - p_y)[:, None]
    np.testing.assert_allclose(fgsm.ascent(tf.constant(logits), y), expected, rtol=1e-10)


def test_the_sign_does_not_vanish_where_the_model_is_certain(trained, right):
    x, y = right(trained["softmax"], 20)
    certain = keras.models.clone_model(trained["softmax"])
    certain.set_weights([1000 * w for w in trained["softmax"].get_weights()])
    p = models.softmax(models.predict(certain, x))
    assert (p[np.arange(20), y] == 1).all()  # in float32: the gradient of -log p_y rounds to zero
    sign = fgsm.gradient_sign(certain, x, y).numpy()
    assert (np.abs(sign).mean(axis=(1, 2)) > 0.9).all()


@pytest.mark.parametrize("name", models.NAMES)
def test_eps_zero_returns_the_image(trained, digits, name):
    x, y = digits
    np.testing.assert_array_equal(fgsm.fgsm(trained[name], x[:10], y[:10], 0), x[:10])


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("eps", [0.01, 0.25, 1.0])
def test_the_result_is_an_image_within_eps(trained, digits, name, eps):
    x, y = digits[0][:50], digits[1][:50]
    x_adv = fgsm.fgsm(trained[name], x, y, eps)
    assert x_adv.dtype == np.float32
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert np.abs(x_adv - x).max() <= eps + 1e-6


@pytest.mark.parametrize("name", models.NAMES)
def test_untargeted_raises_the_loss_and_targeted_lowers_it(trained, right, name):
    model = trained[name]
    x, y = right(model, 100)
    away = fgsm.fgsm(model, x, y, 0.01)
    target = (y + 3) % 10
    towards = fgsm.fgsm(model, x, target, 0.01, targeted=True)
    before = models.predict(model, x)
    assert (cross_entropy(models.predict(model, away), y) > cross_entropy(before, y)).mean() > 0.97
    assert (
        cross_entropy(models.predict(model, towards), target) < cross_entropy(before, target)
    ).mean() > 0.97


@pytest.mark.parametrize("name", models.NAMES)
def test_accuracy_falls(trained, right, name):
    x, y = right(trained[name], 100)
    x_adv = fgsm.fgsm(trained[name], x, y, 0.25)
    assert (models.classify(trained[name], x_adv) == y).mean() < 0.5


@pytest.mark.parametrize("name", models.NAMES)
def test_the_smallest_eps_flips_and_one_percent_less_does_not(trained, right, name):
    model = trained[name]
    x, _ = right(model, 20, source=2)
    target = np.full(20, 6)
    eps, x_adv = fgsm.smallest_eps(model, x, target, tol=1e-5)
    found = np.isfinite(eps)
    assert found.any()
    assert (models.classify(model, x_adv[found]) == 6).all()
    np.testing.assert_array_equal(x_adv[~found], x[~found])
    sign = fgsm.gradient_sign(model, x, target).numpy()
    distance = np.nan_to_num(eps)[:, None, None]
    np.testing.assert_array_equal(x_adv, np.clip(x - distance * sign, 0, 1))
    less = np.clip(x - 0.99 * distance * sign, 0, 1)
    assert (models.classify(model, less[found]) != 6).all()


def test_the_smallest_eps_on_softmax_regression_is_the_exact_root(trained, right):
    """Along the clipped line every logit is piecewise linear: its knots can be listed."""
    model = trained["softmax"]
    x, _ = right(model, 30, source=2)
    eps, _ = fgsm.smallest_eps(model, x, np.full(30, 6))
    sign = fgsm.gradient_sign(model, x, np.full(30, 6)).numpy().astype(np.float64)
    weights, bias = (w.astype(np.float64) for w in model.get_weights())
    for image, s, found in zip(x.astype(np.float64), sign, eps, strict=True):
        knots = np.unique(np.concatenate([image[s > 0], 1 - image[s < 0], [0, 1]]))
        moved = np.clip(image - knots[:, None, None] * s, 0, 1).reshape(len(knots), 784)
        logits = moved @ weights + bias
        leads = logits[:, [6]] - np.delete(logits, 6, axis=1)
        roots = []
        for rival in leads.T:  # in each stretch between two knots the lead is linear
            up = np.flatnonzero((rival[:-1] < 0) & (rival[1:] >= 0))
            share = -rival[up] / (rival[up + 1] - rival[up])
            roots += list(knots[up] + share * (knots[up + 1] - knots[up]))
        lead_at = [
            (np.clip(image - root * s, 0, 1).ravel() @ weights + bias) for root in sorted(roots)
        ]
        exact = next(
            root
            for root, z in zip(sorted(roots), lead_at, strict=True)
            if z[6] - np.delete(z, 6).max() > -1e-9
        )
        assert exact - 1e-6 <= found <= exact + 1e-4 + 1e-5


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
    eps, x_adv = fgsm.smallest_eps(model, np.zeros((2, 28, 28)), np.array([1, 1]))
    np.testing.assert_allclose(eps, 0.2, atol=1.5e-4)
    np.testing.assert_allclose(x_adv, 0.2, atol=1.5e-4)


def test_an_image_already_there_needs_nothing_and_an_unreachable_one_gets_nan():
    model = one_score(lambda m: m - 0.5)
    x = np.stack([np.full((28, 28), 0.7), np.zeros((28, 28)), np.zeros((28, 28))])
    eps, x_adv = fgsm.smallest_eps(model, x, np.array([1, 1, 1]), max_eps=0.4)
    np.testing.assert_array_equal(eps, [0, np.nan, np.nan])
    np.testing.assert_array_equal(x_adv, x.astype(np.float32))
    eps, _ = fgsm.smallest_eps(model, x, np.array([1, 1, 1]))
    np.testing.assert_allclose(eps, [0, 0.5, 0.5], atol=2e-4)


def test_more_confidence_needs_more_eps(trained, right):
    model = trained["softmax"]
    x, _ = right(model, 20, source=2)
    target = np.full(20, 6)
    plain, _ = fgsm.smallest_eps(model, x, target)
    sure, x_adv = fgsm.smallest_eps(model, x, target, confidence=0.9)
    assert (sure > plain).all()
    p = models.softmax(models.predict(model, x_adv))[:, 6]
    assert (p > 0.9).all()
    assert (p < 0.91).all()


def test_batch_size_and_order_do_not_matter(trained, right):
    model = trained["mlp"]
    x, y = right(model, 37)
    target = (y + 1) % 10
    eps, _ = fgsm.smallest_eps(model, x, target)
    small, _ = fgsm.smallest_eps(model, x, target, batch_size=5)
    turned, _ = fgsm.smallest_eps(model, x[::-1], target[::-1])
    np.testing.assert_allclose(small, eps, atol=2e-4)
    np.testing.assert_allclose(turned[::-1], eps, atol=2e-4)
    np.testing.assert_allclose(
        fgsm.fgsm(model, x, y, 0.1, batch_size=8), fgsm.fgsm(model, x, y, 0.1), atol=1e-6
    )


def test_no_images_are_no_problem(trained):
    none, labels = np.zeros((0, 28, 28), np.float32), np.zeros(0, np.int64)
    assert fgsm.fgsm(trained["mlp"], none, labels, 0.1).shape == (0, 28, 28)
    eps, x_adv = fgsm.smallest_eps(trained["mlp"], none, labels)
    assert eps.shape == (0,)
    assert x_adv.shape == (0, 28, 28)


def test_a_tolerance_below_the_spacing_of_float32_ends(trained, right):
    x, _ = right(trained["softmax"], 5, source=2)
    eps, _ = fgsm.smallest_eps(trained["softmax"], x, np.full(5, 6), tol=1e-30)
    assert np.isfinite(eps).all()


def test_more_than_the_whole_range_of_a_pixel_is_the_whole_range(trained, digits):
    """Even where float32 has no such number: 1e39 times a gradient of zero is no step."""
    x, y = digits[0][:5], digits[1][:5]
    blank = keras.models.clone_model(trained["softmax"])
    blank.set_weights([0 * w for w in blank.get_weights()])
    for model in (trained["softmax"], blank):
        np.testing.assert_array_equal(
            fgsm.fgsm(model, x, y, 1e39), np.clip(x + fgsm.gradient_signs(model, x, y), 0, 1)
        )
        eps, _ = fgsm.smallest_eps(model, x, (y + 1) % 10, max_eps=1e39)
        expected, _ = fgsm.smallest_eps(model, x, (y + 1) % 10)
        np.testing.assert_array_equal(eps, expected)
        x_adv = pgd.pgd(model, x, y, 1e39, steps=2, step_size=1e39)
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": -0.1}, "eps"),
        ({"eps": np.nan}, "eps"),
        ({"x": np.zeros((2, 27, 28))}, "images"),
        ({"x": np.full((2, 28, 28), np.nan)}, "outside"),
        ({"x": np.full((2, 28, 28), 255)}, "outside"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": -5}, "batch_size"),
        ({"y": np.array([1, 2, 3])}, "labels"),
        ({"y": np.array([1.0, 2.0])}, "labels"),
        ({"y": np.array([1, 10])}, "0 to 9"),
    ],
)
def test_wrong_values_are_named(trained, change, message):
    arguments = {"x": np.zeros((2, 28, 28)), "y": np.array([1, 2]), "eps": 0.1, **change}
    with pytest.raises(ValueError, match=message):
        fgsm.fgsm(trained["softmax"], **arguments)


@pytest.mark.parametrize("name", ["max_eps", "tol", "resolution", "confidence"])
def test_wrong_search_settings_are_named(trained, name):
    with pytest.raises(ValueError, match=name):
        fgsm.smallest_eps(trained["softmax"], np.zeros((1, 28, 28)), np.array([1]), **{name: -1})
