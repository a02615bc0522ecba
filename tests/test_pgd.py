"""Projected gradient descent takes the steps of Madry et al. (2018); random search over squares
asks for answers alone.  Both stay in their box."""

import keras
import numpy as np
import pytest

from common.networks import mnist
from method2_fgsm import fgsm
from method2_fgsm.pgd import pgd
from method2_fgsm.robust.square import square

EPS = 0.1


def test_many_steps_beat_the_single_one(trained, digits):
    x, y = (part[:100] for part in digits)
    many, one = pgd(trained["mlp"], x, y, EPS, steps=10), fgsm.fgsm(trained["mlp"], x, y, EPS)
    left = [(mnist.classify(trained["mlp"], x_adv) == y).sum() for x_adv in (many, one, x)]
    assert left[0] <= left[1] < left[2]


def test_on_two_classes_of_softmax_regression_it_finds_the_worst_corner(trained, digits):
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


def test_it_starts_at_random_in_the_whole_box_and_the_seed_repeats_it(trained, digits):
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
