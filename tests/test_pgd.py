"""Projected gradient descent takes the steps of Madry et al. (2018) and stays in its box."""

import keras
import numpy as np
import pytest

from common.networks import mnist
from method2_fgsm import fgsm, pgd

EPS = 0.1


@pytest.mark.parametrize("name", mnist.NAMES)
def test_many_steps_beat_the_single_one(trained, digits, name):
    x, y = (part[:100] for part in digits)

    def error(images):
        return (mnist.classify(trained[name], images) != y).mean()

    x_adv = pgd.pgd(trained[name], x, y, EPS, steps=10)
    assert error(x_adv) >= error(fgsm.fgsm(trained[name], x, y, EPS))


def test_on_two_classes_of_softmax_regression_it_finds_the_worst_corner(trained, digits):
    """For two classes the logits are linear, and the worst image in the box is known."""
    two = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(2)])
    weights = np.stack([trained["softmax"].get_weights()[0][:, digit] for digit in (0, 1)], axis=1)
    # A head start for class 0 that no attack can make up for: no image stops early.
    two.set_weights([weights, np.array([1e4, 0])])
    x, y = digits[0][:20], np.zeros(20, np.int64)
    worst = np.clip(x + EPS * np.sign(weights[:, 1] - weights[:, 0]).reshape(28, 28), 0, 1)
    np.testing.assert_allclose(pgd.pgd(two, x, y, EPS, steps=20), worst, atol=1e-5)


def test_it_starts_at_random_in_the_whole_box_and_the_seed_repeats_it(trained, digits):
    x, y = (part[:30] for part in digits)
    x = 0.5 * x + 0.25  # so that the box is not clipped
    start = pgd.pgd(trained["softmax"], x, y, EPS, steps=1, step_size=0) - x
    assert start.min() == pytest.approx(-EPS, abs=1e-4)
    assert start.max() == pytest.approx(EPS, abs=1e-4)
    assert start.std() == pytest.approx(EPS / 3**0.5, rel=0.02)  # uniform
    other = pgd.pgd(trained["softmax"], x, y, EPS, steps=1, step_size=0, seed=1) - x
    assert abs(np.corrcoef(start.ravel(), other.ravel())[0, 1]) < 0.05
    for batch_size in (7, 1000):
        again = pgd.pgd(trained["softmax"], x, y, EPS, steps=1, step_size=0, batch_size=batch_size)
        np.testing.assert_array_equal(again - x, start)


def test_a_misclassified_image_moves_no_further(trained, digits):
    x, y = (part[:30] for part in digits)
    wrong = (mnist.classify(trained["softmax"], x) + 1) % 10
    few, many = (
        pgd.pgd(trained["softmax"], x, wrong, 0.001, steps=n, step_size=0.001) for n in (1, 9)
    )
    np.testing.assert_array_equal(few, many)
    np.testing.assert_array_equal(pgd.pgd(trained["softmax"], x, y, 0), x)
