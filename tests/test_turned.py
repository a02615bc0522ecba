"""Turned and shifted: the grid's worst, and the smallest turn and shift."""

import keras
import numpy as np
import pytest

from common import train_mnist
from common.networks import mnist
from method2_fgsm import turned
from method2_fgsm.turned import (
    DEGREES,
    SHIFTS,
    combined,
    first_wrong,
    moved,
    smallest_shift,
    smallest_turn,
)


def test_an_image_that_does_not_move_is_what_it_was(digits):
    x = digits[0][:20]
    np.testing.assert_array_equal(moved(x, np.zeros((20, 3))), x)
    colour = np.random.default_rng(0).random((2, 9, 12, 3), np.float32)
    np.testing.assert_array_equal(moved(colour, np.zeros((2, 3))), colour)


@pytest.mark.parametrize("side", [27, 28])
def test_a_quarter_turn_is_that_of_numpy(side):
    x = np.random.default_rng(0).random((3, side, side), np.float32)
    turns = np.array([[90.0, 0, 0], [180, 0, 0], [-90, 0, 0]])
    expected = [np.rot90(image, k) for image, k in zip(x, (1, 2, -1), strict=True)]
    np.testing.assert_allclose(moved(x, turns), expected, atol=1e-4)


def test_a_shift_by_whole_and_half_pixels():
    x = np.random.default_rng(0).random((2, 10, 20, 3), np.float32)
    there = moved(x, [[0, 2 / 10, -3 / 20], [0, 0, 0.5 / 20]])
    np.testing.assert_allclose(there[0, 2:, :-3], x[0, :-2, 3:], atol=1e-6)
    assert not there[0, :2].any()
    assert not there[0, :, -3:].any()
    np.testing.assert_allclose(there[1, :, 1:], (x[1, :, 1:] + x[1, :, :-1]) / 2, atol=1e-6)


def test_augment_moves_digits_by_three_pixels_at_most_and_in_training_alone():
    """A dot at the centre, which a turn leaves where it is."""
    keras.utils.set_random_seed(0)
    x = np.zeros((300, 28, 28), np.float32)
    x[:, 12:16, 12:16] = 1
    same = keras.Sequential([keras.Input((28, 28)), keras.layers.Reshape((28, 28))])
    moves = train_mnist.behind_moves(same)
    np.testing.assert_array_equal(moves(x, training=False), x)
    there = np.asarray(moves(x, training=True))
    for axis in (1, 2):
        ink = there.sum(axis=axis)
        middle = (ink * np.arange(28)).sum(axis=1) / ink.sum(axis=1) - 13.5
        assert 2.5 < np.abs(middle).max() < 3.1
    assert (np.abs(there.sum(axis=(1, 2)) - 16) < 1.5).all()


def ink(least):
    """A network that answers 1 where all pixels together are more than `least`, otherwise 0."""
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.layers[-1].set_weights([np.eye(2)[1] * np.ones((784, 1)), np.array([least, 0.0])])
    return model


def test_a_network_that_sums_pixels_is_not_fooled_by_a_shift_that_loses_none():
    x = np.zeros((2, 28, 28), np.float32)
    x[0, 5:23, 5:23] = 0.5  # three pixels and more from each side
    x[1, 1:20, 5:23] = 0.5
    y, model = np.ones(2, int), ink(0.5 * 18 * 18 - 0.25)
    shift, x_adv = smallest_shift(model, x, y)
    assert np.isnan(shift[0]).all()
    np.testing.assert_array_equal(x_adv[0], x[0])
    # The other one falls, once enough rows are gone at the top.
    assert shift[1, 0] < -1 / 28
    assert mnist.classify(model, x_adv[1:]) == 0


def test_the_answer_at_the_smallest_turn_is_wrong_and_before_it_right(trained, right):
    model = trained["mlp"]
    x, y = right(model, 12)
    degrees, x_adv = smallest_turn(model, x, y)
    found = np.isfinite(degrees)
    assert found.sum() > 6
    np.testing.assert_array_equal(mnist.classify(model, x_adv) != y, found)
    for image, label, angle, fallen in zip(x, y, degrees, found, strict=True):
        most = 10 * abs(angle) - 0.5 if fallen else 450
        before = np.arange(int(most) + 1) / 10
        turns = np.concatenate([before, -before])[:, np.newaxis] * [1, 0, 0]
        images = moved(np.repeat(image[np.newaxis], len(turns), axis=0), turns)
        assert (mnist.classify(model, images) == label).all()
    wrong, same = smallest_turn(model, x, (y + 1) % 10)
    assert not wrong.any()
    np.testing.assert_array_equal(same, x)


def test_the_smallest_shift_is_the_shortest(trained, right):
    model = trained["softmax"]
    x, y = right(model, 6)
    shift, x_adv = smallest_shift(model, x, y)
    assert (mnist.classify(model, x_adv) != y).all()
    grid = np.arange(-30, 31) / 280
    down, across = (part.ravel() for part in np.meshgrid(grid, grid, indexing="ij"))
    for image, label, move in zip(x, y, shift, strict=True):
        nearer = np.hypot(down, across) < np.linalg.norm(move) - 1e-9
        moves = np.stack([0 * down, down, across], axis=1)[nearer]
        images = moved(np.repeat(image[np.newaxis], len(moves), axis=0), moves)
        assert (mnist.classify(model, images) == label).all()


def test_the_worst_of_the_grid_is_no_better_than_any_of_its_points(trained, digits):
    model = trained["mlp"]
    x, y = (part[:60] for part in digits)
    both = np.ones(60, bool)
    for degree in DEGREES:
        for down in SHIFTS:
            for across in SHIFTS:
                move = np.tile([degree, down, across], (60, 1))
                both &= mnist.classify(model, moved(x, move)) == y
    all_of_them = combined(DEGREES, SHIFTS)
    assert all_of_them.shape == (775, 3)
    for moves in (all_of_them, all_of_them[::-1]):
        np.testing.assert_array_equal(first_wrong(model, x, y, moves) == 775, both)
    # One move for all images, or each its own.
    moves = np.random.default_rng(1).uniform(-0.1, 0.1, (4, 3)) * [100, 1, 1]
    each = np.repeat(moves[np.newaxis], 60, axis=0)
    np.testing.assert_array_equal(first_wrong(model, x, y, moves), first_wrong(model, x, y, each))


def test_the_script_draws_a_figure_and_prints_a_row_a_network(trained, tmp_path, capsys):
    output = tmp_path / "turned.png"
    written = turned.main(["--models", "softmax", "mlp", "--count", "40", "--output", str(output)])
    assert written[0].read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out.splitlines()[-2:]
    for line in table:
        clean, turns, shifts, both, drawn = (float(cell[:-1]) for cell in line.split()[-5:])
        assert both <= min(turns, shifts) <= clean
        assert drawn <= clean


def test_a_file_in_half_precision_with_a_softmax_is_asked_itself(tmp_path, capsys):
    """Bright above or below: a digit that is shifted far enough is read wrongly."""
    half = keras.Sequential([keras.Input((8, 6)), keras.layers.Flatten()])
    half.add(keras.layers.Dense(2, "softmax", dtype="mixed_float16"))
    rows = np.repeat(np.eye(2), 24, axis=0)
    half.set_weights([rows, np.zeros(2)])
    half.save(tmp_path / "half.keras")
    x = np.zeros((20, 8, 6), np.float32)
    x[::2, 3], x[1::2, 4] = 1, 1
    np.savez(tmp_path / "s.npz", images=x, labels=np.arange(20) % 2)
    own = ["--model", str(tmp_path / "half.keras"), "--samples", str(tmp_path / "s.npz")]
    output = tmp_path / "t.png"
    assert turned.main([*own, "--pixels", "0..1", "--output", str(output)]) == [output]
    row = capsys.readouterr().out.splitlines()[-1].split()
    # The largest shift is 3 / 28 of 8 pixels, 0.86: across the middle.
    assert row[:2] == ["half.keras", "100.0%"]
    assert row[3] == "0.0%"
