"""The fast gradient sign method does what Goodfellow et al. (2015) wrote down; projected gradient
descent takes the steps of Madry et al. (2018); random search over squares asks for answers alone.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.networks import mnist
from method2_fgsm import fgsm
from method2_fgsm.pgd import pgd
from method2_fgsm.robust.square import square

EPS = 0.1


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
    p = mnist.softmax(x.reshape(-1, 784) @ weights + bias)
    gradient = ((p - np.eye(10)[labels]) @ weights.T).reshape(x.shape)  # of -log p_y
    clear = np.abs(gradient) > 1e-6 * np.abs(gradient).max()  # where the sign is not rounding
    expected = np.clip(x + (-0.2 if targeted else 0.2) * np.sign(gradient), 0, 1)
    assert clear.mean() > 0.99
    # In full batches and a rest, and all at once.
    for batch_size in (64, 1000):
        x_adv = fgsm.fgsm(model, x, labels, 0.2, targeted=targeted, batch_size=batch_size)
        np.testing.assert_allclose(x_adv[clear], expected[clear], atol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_gradient_agrees_with_finite_differences(name):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("float64")
        keras.utils.set_random_seed(1)
        model = mnist.build(name)
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
    p = mnist.softmax(logits)
    p_y = p[np.arange(6), y]
    expected = (p - np.eye(10)[y]) / (1 - p_y)[:, None]
    np.testing.assert_allclose(fgsm.ascent(tf.constant(logits), y), expected, rtol=1e-10)


def test_the_sign_does_not_vanish_where_the_model_is_certain(trained, right):
    x, y = right(trained["softmax"], 20)
    certain = keras.models.clone_model(trained["softmax"])
    certain.set_weights([1000 * w for w in trained["softmax"].get_weights()])
    p = mnist.softmax(mnist.predict(certain, x))
    assert (p[np.arange(20), y] == 1).all()  # in float32: the gradient of -log p_y rounds to zero
    sign = fgsm.gradient_sign(certain, x, y).numpy()
    assert (np.abs(sign).mean(axis=(1, 2)) > 0.9).all()


# Projected steps, and squares ---------------------------------------------------------------------


def test_many_steps_beat_the_single_one(trained, digits):
    x, y = (part[:100] for part in digits)
    many, one = pgd(trained["mlp"], x, y, EPS, steps=10), fgsm.fgsm(trained["mlp"], x, y, EPS)
    left = [(mnist.classify(trained["mlp"], x_adv) == y).sum() for x_adv in (many, one, x)]
    assert left[0] <= left[1] < left[2]


def test_projected_steps_find_the_worst_corner_of_two_classes(trained, digits):
    """For two classes the logits are linear, and the worst image in the box is known."""
    two = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(2)])
    weights = np.stack([trained["softmax"].get_weights()[0][:, digit] for digit in (0, 1)], axis=1)
    # A head start for class 0 that no attack can make up for: no image stops early.
    two.set_weights([weights, np.array([1e4, 0])])
    x, y = digits[0][:20], np.zeros(20, np.int64)
    worst = np.clip(x + EPS * np.sign(weights[:, 1] - weights[:, 0]).reshape(28, 28), 0, 1)
    for loss in ("cross entropy", "margin"):
        x_adv = pgd(two, x, y, EPS, steps=20, loss=loss)
        np.testing.assert_allclose(x_adv, worst, atol=1e-5)


def test_projected_steps_start_at_random_in_the_whole_box_and_the_seed_repeats_it(trained, digits):
    x, y = (part[:30] for part in digits)
    x = 0.5 * x + 0.25  # so that the box is not clipped

    def start(**settings):
        return pgd(trained["softmax"], x, y, EPS, steps=1, step_size=0, **settings) - x

    first = start()
    assert first.min() == pytest.approx(-EPS, abs=1e-4)
    assert first.max() == pytest.approx(EPS, abs=1e-4)
    assert first.std() == pytest.approx(EPS / 3**0.5, rel=0.02)  # uniform
    assert abs(np.corrcoef(first.ravel(), start(seed=1).ravel())[0, 1]) < 0.05
    np.testing.assert_array_equal(start(batch_size=7), first)


def test_a_misclassified_image_moves_no_further(trained, digits):
    x, y = (part[:30] for part in digits)
    wrong = (mnist.classify(trained["softmax"], x) + 1) % 10
    few, many = (pgd(trained["softmax"], x, wrong, 0.001, steps=n, step_size=0.001) for n in (1, 9))
    np.testing.assert_array_equal(few, many)
    np.testing.assert_array_equal(pgd(trained["softmax"], x, y, 0), x)
    np.testing.assert_array_equal(square(trained["softmax"], x, wrong, EPS), x)
    assert square(trained["softmax"], x[:0], y[:0], EPS).shape == (0, 28, 28)


def test_each_square_leaves_the_label_less_of_its_margin(trained, right):
    x, y = right(trained["mlp"], 40)

    def margin(x_adv):
        logits = mnist.predict(trained["mlp"], x_adv)
        own = logits[np.arange(len(y)), y]
        logits[np.arange(len(y)), y] = -np.inf
        return (own - logits.max(axis=1)).mean()

    # Not of one run: the sizes of the squares depend on the number of queries.
    margins = [margin(square(trained["mlp"], x, y, 0.05, queries=n)) for n in (1, 20, 100)]
    assert margins[0] > margins[1] > margins[2]


def test_squares_move_every_pixel_to_its_edge_and_the_seed_repeats_them(trained, right):
    x, y = right(trained["softmax"], 30)
    x_adv = square(trained["softmax"], x, y, EPS, queries=30, seed=4)
    edges = np.abs(x_adv - np.clip(x + EPS, 0, 1)), np.abs(x_adv - np.clip(x - EPS, 0, 1))
    np.testing.assert_allclose(np.minimum(*edges), 0, atol=1e-6)
    again = square(trained["softmax"], x, y, EPS, queries=30, seed=4, batch_size=7)
    np.testing.assert_array_equal(again, x_adv)
    assert (square(trained["softmax"], x, y, EPS, queries=30, seed=5) != x_adv).any()
