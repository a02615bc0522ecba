"""The smallest noise: from several starts, and for many classes."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

from common.networks import mnist
from method1_noise_optimization import attack, minimal
from method1_noise_optimization.attack import find_noise, sizes


def linear(shape, classes, seed=0):
    """An untrained linear classifier."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(classes)]
    )


def test_more_starts_never_find_larger_noise(trained, few):
    x, y_target = few(trained["mlp"], 40)
    settings = {"method": "minimal", "max_steps": 60}
    one, two, five = (
        sizes(find_noise(trained["mlp"], x, y_target, starts=starts, **settings))
        for starts in (1, 2, 5)
    )
    assert (two <= one * (1 + 1e-6)).all()
    assert (five <= two * (1 + 1e-6)).all()
    assert five.mean() < one.mean()


def test_starts_begin_at_the_image_or_at_the_nearest_hit_so_far(trained, few, monkeypatch):
    x, y_target = few(trained["mlp"], 10)
    begun, descend = [], minimal._descend

    def spied(model, images, origin, *rest):
        begun.append((np.array(origin) - images, np.array(origin)))
        return descend(model, images, origin, *rest)

    monkeypatch.setattr(minimal, "_descend", spied)
    monkeypatch.setattr(minimal, "AGREED", 100)
    settings = {"method": "minimal", "max_steps": 30, "starts": 8}
    found = sizes(find_noise(trained["mlp"], x, y_target, **settings))
    assert len(begun) == 8
    assert not any(noise.any() for noise, _ in begun[: minimal.IN_TURN])
    before = np.inf
    for noise, origin in begun[minimal.IN_TURN :]:
        assert (mnist.classify(trained["mlp"], origin.reshape(x.shape)) == y_target).all()
        size = sizes(noise)
        assert (size <= before).all()
        before = size
    assert (found <= before * (1 + 1e-6)).all()


def test_starts_end_where_they_agree(trained, few):
    """A linear classifier has one optimum, and any two starts find it."""
    x, y_target = few(trained["softmax"], 10)
    settings = {"method": "minimal", "max_steps": 60}
    _, steps = attack.search(trained["softmax"], x, y_target, starts=50, **settings)
    assert steps.max() <= 6 * 60
    x, y_target = few(trained["mlp"], 40)
    _, steps = attack.search(trained["mlp"], x, y_target, starts=5, **settings)
    assert set(steps) <= {60 * starts for starts in range(1, 6)}


def test_a_thousand_classes_are_no_harder_than_ten():
    """The exact answer where only two classes ever come near the top is that of the two."""
    x = np.random.default_rng(0).uniform(0.4, 0.6, (6, 8, 8, 3)).astype(np.float32)
    model = linear((8, 8, 3), 1000)
    weights, bias = model.get_weights()
    bias[:2] = 5, 7
    model.set_weights([weights, bias])
    noise = find_noise(model, x, np.zeros(6, int), method="minimal")
    a = (weights[:, 0] - weights[:, 1]).astype(np.float64)
    lead = x.reshape(6, -1) @ a - 2
    # Far from the bounds of the box the distance to the plane is the answer.
    assert np.abs(x + noise - 0.5).max() < 0.5
    np.testing.assert_allclose(sizes(noise), -lead / np.linalg.norm(a), rtol=1e-3)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_a_photograph_takes_25_mb_at_most():
    n, side = 8, 224
    image = keras.Input((side, side, 3))
    model = keras.Model(
        image, keras.layers.Dense(1000)(keras.layers.AveragePooling2D(56)(image)[:, 0, 0])
    )
    x = np.random.default_rng(0).random((n, side, side, 3), np.float32)
    settings = {"method": "minimal", "max_steps": 3, "batch_size": n}
    find_noise(model, x[:1], np.zeros(1, int), **settings)

    def memory(what):
        status = Path("/proc/self/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) / 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = memory("VmRSS")
    find_noise(model, x, np.zeros(n, int), **settings)
    assert memory("VmHWM") - before < 25 * n
