"""Method 1: the noise stays in the box, reaches its target, and is as small as it should be, and so
are the changes of whole grey levels."""

import keras
import numpy as np
import pytest
from scipy.optimize import minimize

from common.networks import mnist
from method1_noise_optimization import attack, grey_levels, lbfgs
from method1_noise_optimization.attack import find_noise, sizes
from method2_fgsm.smallest_eps import smallest_eps


@pytest.fixture(scope="module")
def task(trained, digits):
    """Ten digits that softmax regression and MLP get right, and other digits as targets."""
    x, y = (part[:40] for part in digits)
    networks = [trained["softmax"], trained["mlp"]]
    right = mnist.correctly_classified(networks, x, y, "the test set")[:10]
    return x[right], (y[right] + np.arange(10) % 9 + 1) % 10


@pytest.fixture(scope="module", params=["softmax", "mlp"])
def found(request, trained, task):
    """A network, and the noise that each method finds on it."""
    model = trained[request.param]
    return model, {method: find_noise(model, *task, method=method) for method in attack.METHODS}


def logistic(logits, target):
    """The cross entropy of float64 logits (classes,), and its slopes."""
    p = np.exp(logits - logits.max())
    loss = np.log(p.sum()) + logits.max() - logits[target]
    p /= p.sum()
    p[target] -= 1
    return loss, p


def linear(shape, classes):
    """An untrained linear classifier."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(classes)]
    )


def test_every_noise_reaches_its_target_in_the_box_and_minimal_is_just_enough(found, task):
    (model, noises), (x, y_target) = found, task
    for noise in noises.values():
        assert (mnist.classify(model, np.clip(x + noise, 0, 1)) == y_target).all()
        assert attack.reached(model, x, noise, y_target).all()
        assert -1e-6 <= (x + noise).min() <= (x + noise).max() <= 1 + 1e-6
    mean = {method: sizes(noise).mean() for method, noise in noises.items()}
    assert mean["minimal"] < mean["lbfgs"] < mean["sgd"]
    assert not attack.reached(model, x, 0.99 * noises["minimal"], y_target).any()


def test_lbfgs_looks_for_the_c_at_which_the_class_turns(found, task):
    (model, noises), (x, y_target) = found, task
    logits = mnist.predict(model, x + noises["lbfgs"]).astype(np.float64)
    chosen = logits[np.arange(10), y_target]
    logits[np.arange(10), y_target] = -np.inf
    # On the boundary: a slightly dearer noise would not have been enough.
    assert np.median(chosen - logits.max(axis=1)) < 0.1


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("none", lambda r: 0 * r),
        ("l1", lambda r: np.sign(r) / r.size),
        ("l2", lambda r: 2 * r / r.size),
    ],
)
def test_sgd_is_the_loop_over_single_images_that_it_replaces(trained, task, name, slope):
    x, y_target = (part[:4] for part in task)
    model = trained["softmax"]
    weights, bias = (w.astype(np.float64) for w in model.get_weights())
    x_adv, steps = attack.search(model, x, y_target, regularization=name, learning_rate=0.05)
    for i in range(len(x)):
        pixels, r, taken = x[i].ravel().astype(np.float64), np.zeros(784), 0
        while True:
            moved = pixels + r
            logits = np.clip(moved, 0, 1) @ weights + bias
            if logits.argmax() == y_target[i]:
                break
            inside = (moved >= 0) & (moved <= 1)
            r -= 0.05 * (inside * (weights @ logistic(logits, y_target[i])[1]) + slope(r))
            taken += 1
        assert steps[i] == taken
        expected = np.clip(pixels + r, 0, 1) - pixels
        np.testing.assert_allclose((x_adv - x)[i].ravel(), expected, atol=2e-4)


def test_lbfgs_minimises_as_scipy_does(trained, task):
    model, c = trained["softmax"], np.float32([0.1, 0.3, 0.6])
    x, y_target = task[0][:3].reshape(3, -1), task[1][:3]
    p, _ = lbfgs.minimise(model, x, y_target, x, c, np.ones_like(c), max_steps=500)
    weights, bias = (w.astype(np.float64) for w in model.get_weights())

    def value_and_gradient(q, i):
        r = q - x[i]
        size = np.sqrt((r**2).sum() + lbfgs.KINK**2)
        loss, slopes = logistic(q @ weights + bias, y_target[i])
        return c[i] * size + loss, c[i] * r / size + weights @ slopes

    for i in range(3):
        how = {"jac": True, "method": "L-BFGS-B", "bounds": [(0, 1)] * 784}
        reference = minimize(value_and_gradient, x[i], args=(i,), **how)
        ours = value_and_gradient(p[i].astype(np.float64), i)[0]
        assert ours == pytest.approx(reference.fun, rel=1e-3)
    assert p.min() >= 0
    assert p.max() <= 1


def test_the_units_of_the_logits_do_not_matter():
    """Logits ten thousand times as far apart, and a thousand larger, have the same borders."""
    layers = keras.layers.Dense(30, activation="tanh"), keras.layers.Dense(6)
    model = keras.Sequential([keras.Input((20,)), *layers])
    rng, means = np.random.default_rng(0), []
    *inner, kernel, bias = (rng.normal(0, 2 / w.shape[0] ** 0.5, w.shape) for w in model.weights)
    x = rng.random((12, 20), np.float32)
    for scale, offset in ((0.01, 0), (100, 1000)):
        model.set_weights([*inner, scale * kernel, scale * bias + offset])
        y = mnist.predict(model, x).argsort(axis=1)[:, -2]
        noises = [find_noise(model, x, y, method=method) for method in ("minimal", "lbfgs")]
        assert all(attack.reached(model, x, noise, y).all() for noise in noises)
        eps, _ = smallest_eps(model, x, y, steps=60)
        means.append([*(sizes(noise).mean() for noise in noises), eps.mean()])
    np.testing.assert_allclose(*means, rtol=0.01)


def test_order_and_batch_size_change_nothing_but_rounding(found, task):
    (model, noises), order = found, np.random.default_rng(0).permutation(10)
    x, y_target = (part[order] for part in task)
    # lbfgs stops where the objective no longer falls, which rounding decides.
    for method, tolerance in (("sgd", 1e-3), ("minimal", 1e-3), ("lbfgs", 0.02)):
        other = find_noise(model, x, y_target, batch_size=4, method=method)
        np.testing.assert_allclose(sizes(noises[method])[order], sizes(other), rtol=tolerance)


def test_a_learning_rate_at_which_the_noise_diverges_still_ends_in_the_box():
    """The step of the l2 term alone is r ← r - 100 · 2 r / 4, which grows 49 times each step."""
    model = linear((2, 2), 2)
    model.set_weights([np.float32([[1, -1]] * 4), np.float32([0, 9])])  # always says 1
    x = np.full((1, 2, 2), 0.5, np.float32)
    x_adv, steps = attack.search(model, x, np.array([0]), learning_rate=100, max_steps=100)
    assert steps == [100]
    assert not attack.reached(model, x, x_adv - x, np.array([0])).any()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()  # and so finite


# The smallest noise -------------------------------------------------------------------------------


def test_minimal_settles_where_linear_pieces_meet():
    """z_0 - z_1 = 2 (p_0 + p_1) - 4 |p_0 - p_1| - 2: the region is a wedge, its edge (½, ½)."""
    layers = keras.layers.Dense(3, activation="relu"), keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((2,)), *layers])
    first, second = [[1, -1, 1], [-1, 1, 1]], [[-4, 0], [-4, 0], [2, 0]]
    model.set_weights([*map(np.float32, (first, [0, 0, 0], second, [-2, 0]))])
    x = np.random.default_rng(0).uniform(0, 0.35, (50, 2)).astype(np.float32)
    target = np.zeros(50, int)
    noise = find_noise(model, x, target, method="minimal")
    assert attack.reached(model, x, noise, target).all()
    # The gradient says nothing of the edge: it jumps from one side of the wedge to the other.
    np.testing.assert_allclose(x + noise, 0.5, atol=0.06)
    np.testing.assert_allclose(sizes(noise).mean(), sizes(0.5 - x).mean(), rtol=0.05)


def test_more_starts_never_find_larger_noise(trained, task):
    one, two, five = (
        sizes(find_noise(trained["mlp"], *task, starts=starts, method="minimal", max_steps=60))
        for starts in (1, 2, 5)
    )
    assert (two <= one * (1 + 1e-6)).all()
    assert (five <= two * (1 + 1e-6)).all()
    assert five.mean() < one.mean()


def test_starts_end_where_they_agree(trained, task):
    """A linear classifier has one optimum, and any two starts find it."""
    settings = {"method": "minimal", "max_steps": 60, "starts": 50}
    _, steps = attack.search(trained["softmax"], *task, **settings)
    assert steps.max() <= 6 * 60


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


# Whole grey levels --------------------------------------------------------------------------------


def two_logits(weights, bias):
    """A model of images (h, w, 3) with logits 0 and weights · x + bias."""
    layers = keras.layers.Flatten(), keras.layers.Dense(2)
    model = keras.Sequential([keras.Input(weights.shape), *layers])
    kernel = np.stack([np.zeros(weights.size), weights.ravel()], axis=1)
    model.set_weights([kernel, np.array([0, bias])])
    return model


@pytest.fixture(scope="module")
def pixels_task():
    """A linear model, six images of class 0, and their targets, 1."""
    random = np.random.default_rng(0)
    weights = random.normal(size=(8, 8, 3)).astype(np.float32)
    pixels = random.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    pixels[:, :2] = 0  # values that can only go up
    pixels[:, -1] = 255
    scores = (pixels / 255 * weights).sum(axis=(1, 2, 3))
    return two_logits(weights, -scores.max() - 0.3), weights, pixels, np.ones(6, np.int64)


def says(model, images):
    return model.predict_on_batch(images / np.float32(255)).argmax(axis=1)


@pytest.mark.parametrize("levels", [1, 3, 40])
def test_for_a_linear_model_hardly_more_values_change_than_must(pixels_task, levels):
    model, weights, pixels, y_target = pixels_task
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


def test_for_a_linear_model_the_smallest_change_is_near_the_bound(pixels_task):
    model, _, pixels, y_target = pixels_task
    images, reached = grey_levels.search(model, pixels, y_target)
    assert reached.all()
    assert (says(model, images) == 1).all()
    size = np.linalg.norm((images.astype(int) - pixels).reshape(6, -1), axis=1)
    # Nothing is nearer than the plane; the box and whole levels cost a little.
    noise = find_noise(model, pixels / np.float32(255), y_target, method="minimal", max_steps=60)
    bound = np.linalg.norm(noise.reshape(6, -1), axis=1) * 255
    assert (size >= 0.999 * bound).all()
    assert (size <= 1.05 * bound + 1).all()
    known, _ = grey_levels.search(model, pixels, y_target, noise=noise, max_steps=30)
    assert (says(model, known) == 1).all()


def test_confidence_is_that_of_the_image_found(pixels_task):
    model, _, pixels, y_target = pixels_task
    images, reached = grey_levels.search(model, pixels, y_target, levels=40, confidence=0.8)
    assert reached.all()
    logits = model.predict_on_batch(images / np.float32(255))
    share = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    assert (share >= 0.8).all()
    assert share.mean() < 0.95


def test_an_image_that_is_its_target_already_comes_back_as_it_is(pixels_task):
    model, _, pixels, y_target = pixels_task
    for levels in (None, 1):
        images, reached = grey_levels.search(model, pixels, 1 - y_target, levels=levels)
        np.testing.assert_array_equal(images, pixels)
        assert reached.all()
        images, reached = grey_levels.search(model, pixels[:0], y_target[:0], levels=levels)
        assert images.shape == (0, 8, 8, 3)
