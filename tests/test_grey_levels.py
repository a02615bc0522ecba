"""The search among 8-bit images: what it promises of every image, and how near it comes."""

import keras
import numpy as np
import pytest

from method1_noise_optimization import attack, grey_levels


def linear(weights, bias):
    """A model of images (h, w, 3) with logits 0 and weights · x + bias."""
    layers = keras.layers.Flatten(), keras.layers.Dense(2)
    model = keras.Sequential([keras.Input(weights.shape), *layers])
    kernel = np.stack([np.zeros(weights.size), weights.ravel()], axis=1)
    model.set_weights([kernel, np.array([0, bias])])
    return model


@pytest.fixture(scope="module")
def task():
    """A linear model, six images of class 0, and their targets, 1."""
    random = np.random.default_rng(0)
    weights = random.normal(size=(8, 8, 3)).astype(np.float32)
    pixels = random.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    pixels[:, :2] = 0  # values that can only go up
    pixels[:, -1] = 255
    scores = (pixels / 255 * weights).sum(axis=(1, 2, 3))
    return linear(weights, -scores.max() - 0.3), weights, pixels, np.ones(6, np.int64)


def says(model, images):
    return model.predict_on_batch(images / np.float32(255)).argmax(axis=1)


@pytest.mark.parametrize("levels", [1, 3, 40])
def test_for_a_linear_model_hardly_more_values_change_than_must(task, levels):
    model, weights, pixels, y_target = task
    images, reached = grey_levels.search(model, pixels, y_target, levels=levels)
    change = images.astype(int) - pixels
    assert np.abs(change).max() <= levels
    assert (change * weights >= 0).all()
    room = np.minimum(np.where(weights > 0, 255 - pixels.astype(int), pixels), levels)
    logits = model.predict_on_batch(pixels / np.float32(255))
    missing = (logits[:, 0] - logits[:, 1]) * 255  # in units of a weight times a grey level
    for i, gain in enumerate((room * np.abs(weights)).reshape(6, -1)):
        assert reached[i] == (gain.sum() > missing[i])
        if reached[i]:
            fewest = np.searchsorted(np.cumsum(np.sort(gain)[::-1]), missing[i]) + 1
            assert fewest <= (change[i] != 0).sum() <= 1.1 * fewest + 2
    np.testing.assert_array_equal(says(model, images) == 1, reached)


def test_for_a_linear_model_the_smallest_change_is_near_the_bound(task):
    model, _, pixels, y_target = task
    images, reached = grey_levels.search(model, pixels, y_target)
    assert reached.all()
    assert (says(model, images) == 1).all()
    size = np.linalg.norm((images.astype(int) - pixels).reshape(6, -1), axis=1)
    # Nothing is nearer than the plane; the box and whole levels cost a little.
    noise = attack.find_noise(
        model, pixels / np.float32(255), y_target, method="minimal", max_steps=60
    )
    bound = np.linalg.norm(noise.reshape(6, -1), axis=1) * 255
    assert (size >= 0.999 * bound).all()
    assert (size <= 1.05 * bound + 1).all()
    known, _ = grey_levels.search(model, pixels, y_target, noise=noise, max_steps=30)
    assert (says(model, known) == 1).all()


def test_confidence_is_that_of_the_image_found(task):
    model, _, pixels, y_target = task
    images, reached = grey_levels.search(model, pixels, y_target, levels=40, confidence=0.8)
    assert reached.all()
    logits = model.predict_on_batch(images / np.float32(255))
    share = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    assert (share >= 0.8).all()
    assert share.mean() < 0.95


def test_an_image_that_is_its_target_already_comes_back_as_it_is(task):
    model, _, pixels, y_target = task
    for levels in (None, 1):
        images, reached = grey_levels.search(model, pixels, 1 - y_target, levels=levels)
        np.testing.assert_array_equal(images, pixels)
        assert reached.all()
        images, reached = grey_levels.search(model, pixels[:0], y_target[:0], levels=levels)
        assert images.shape == (0, 8, 8, 3)
