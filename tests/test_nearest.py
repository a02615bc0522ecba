"""The nearest wrong answer, without a target: as near as the nearest of all targets, or nearer."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import brentq

from common.networks import mnist
from logreg_softmax import exact
from logreg_softmax.linear_programme import smallest_linf
from method1_noise_optimization import distances
from method1_noise_optimization.attack import find_noise, reached, search, sizes
from method2_fgsm.fgsm import fgsm
from method2_fgsm.smallest_eps import smallest_eps


def nearest_noise(model, x, y, **settings):
    return find_noise(model, x, y, targeted=False, method="minimal", **settings)


def linear(weights, bias):
    """A Keras model with the logits x W + b."""
    model = keras.Sequential([keras.Input(weights.shape[:1]), keras.layers.Dense(len(bias))])
    model.layers[-1].set_weights([weights, bias])
    return model


@pytest.mark.parametrize("classes", [2, 5])
def test_a_linear_model_is_left_through_the_nearest_half_space(classes):
    """With a the slope of z_k - z_y the nearest point is clip(x + μ a), or clip(x + ε sign a)."""
    rng = np.random.default_rng(classes)
    weights, bias = rng.normal(size=(20, classes)), rng.normal(size=classes)
    x = rng.uniform(size=(10, 20)).astype(np.float32)
    y = (x @ weights + bias).argmax(axis=1)
    l2, linf = np.full((2, 10, classes), np.inf)
    for i, k in np.ndindex(10, classes):
        a, c = weights[:, k] - weights[:, y[i]], bias[k] - bias[y[i]]

        def lead(length, along, image=x[i], a=a, c=c):
            return np.clip(image + length * along, 0, 1) @ a + c

        if lead(1, np.sign(a)) > 0:  # z_k can get ahead
            mu = brentq(lead, 0, 1e4, args=(a,))
            l2[i, k] = np.linalg.norm(np.clip(x[i] + mu * a, 0, 1) - x[i])
            linf[i, k] = brentq(lead, 0, 1, args=(np.sign(a),))
    model = linear(weights, bias)
    noise = nearest_noise(model, x, y)
    assert reached(model, x, noise, y, targeted=False).all()
    np.testing.assert_allclose(sizes(noise), l2.min(axis=1), rtol=1e-3)
    eps, x_adv = smallest_eps(model, x, y, targeted=False, steps=600)
    assert (mnist.classify(model, x_adv) != y).all()
    np.testing.assert_allclose(eps, linf.min(axis=1), rtol=2e-3, atol=2e-5)


def test_softmax_regression_needs_the_smallest_of_nine_programmes(trained, right):
    model = trained["softmax"]
    x, y = right(model, 8)
    weights, bias = model.get_weights()
    targets = [(y + k) % 10 for k in range(1, 10)]
    l2 = np.min([sizes(exact.smallest_noise(weights, bias, x, t)[0]) for t in targets], axis=0)
    linf = np.nanmin([smallest_linf(weights, bias, x, t)[0] for t in targets], axis=0)
    found = sizes(nearest_noise(model, x, y))
    eps, _ = smallest_eps(model, x, y, targeted=False, steps=500)
    for size, optimum in ((found, l2), (eps, linf)):
        assert (size >= optimum * (1 - 1e-5)).all()
        assert size.mean() <= 1.0005 * optimum.mean()


def test_no_target_is_nearer_than_the_nearest_wrong_answer(trained, right):
    """At the same number of gradients or fewer, on a network."""
    model = trained["mlp"]
    x, y = right(model, 25)
    l2, linf = np.full((2, 9, 25), np.inf)
    for k in range(9):
        target = (y + k + 1) % 10
        noise = find_noise(model, x, target, method="minimal", max_steps=100)
        hit = reached(model, x, noise, target)
        l2[k, hit] = sizes(noise)[hit]
        linf[k] = np.nan_to_num(smallest_eps(model, x, target, steps=60)[0], nan=np.inf)
    near, steps = search(model, x, y, targeted=False, method="minimal", starts=4)
    assert steps.max() <= 900
    eps, x_adv = smallest_eps(model, x, y, targeted=False, steps=540)
    for found, size, best in ((near, sizes(near - x), l2.min(axis=0)), (x_adv, eps, linf.min(0))):
        assert (mnist.classify(model, found) != y).all()
        assert (size <= 1.02 * best).all()
        assert size.mean() <= best.mean()


def test_more_steps_find_no_more_noise(trained, right):
    """Not even where they are too few to reach most of the rivals."""
    x, y = right(trained["mlp"], 25)
    few, more, most = (
        sizes(nearest_noise(trained["mlp"], x, y, max_steps=steps)).mean() for steps in (10, 30, 60)
    )
    assert few >= 0.999 * more >= 0.998 * most
    settings = {"targeted": False, "method": "minimal"}
    for steps in (1, 5, 12):
        _, taken = search(trained["mlp"], x[:2], y[:2], max_steps=steps, **settings)
        assert (taken <= 9 + 3 * steps).all()


@pytest.mark.parametrize("targeted", [False, True])
def test_what_has_done_its_work_stays(targeted):
    """A network that sees of each pixel whether it is above a half, and so has no slope beyond: the
    nearest answer is that of the best of all 2^10 ways to cross, or a little nearer."""
    pixels, steep, images, rng = 10, 40.0, 8, np.random.default_rng(0)
    sizes_of_layers = [(pixels, "sigmoid"), (32, "relu"), (5, None)]
    stack = [keras.layers.Dense(units, activation) for units, activation in sizes_of_layers]
    model = keras.Sequential([keras.Input((pixels,)), *stack])
    drawn = [rng.normal(size=weight.shape) for layer in stack[1:] for weight in layer.get_weights()]
    model.set_weights([steep * np.eye(pixels), np.full(pixels, -steep / 2), *drawn])
    x = rng.uniform(0, 0.35, (images, pixels)).astype(np.float32)
    x = np.where(rng.uniform(size=x.shape) < 0.5, x, 1 - x)
    crossed = np.where(x < 0.5, 0.5 + 4 / steep, 0.5 - 4 / steep).astype(np.float32)
    target, y = mnist.predict(model, x).argsort(axis=1)[:, -2:].T
    ways = np.array(list(itertools.product([False, True], repeat=pixels)))
    best = np.full(images, np.inf)
    for i in range(images):
        points = np.where(ways, crossed[i], x[i])
        seen = mnist.classify(model, points)
        hit = seen == target[i] if targeted else seen != y[i]
        best[i] = sizes(points - x[i])[hit].min(initial=np.inf)
    possible = np.isfinite(best)
    assert possible.sum() >= 6
    if targeted:
        noise = find_noise(model, x, target, method="minimal", starts=8)
        assert (mnist.classify(model, x + noise) == target)[possible].all()
    else:
        noise = nearest_noise(model, x, y, starts=4)
    assert (sizes(noise) <= 1.02 * best).all()


def test_one_step_goes_away_from_the_label_as_far_as_it_has_to(trained, right):
    model = trained["mlp"]
    x, y = right(model, 25)
    eps, x_adv = smallest_eps(model, x, y, targeted=False)
    found = np.isfinite(eps)
    assert found.sum() > 15
    np.testing.assert_array_equal(x_adv[found], fgsm(model, x[found], y[found], eps[found]))
    assert (mnist.classify(model, x_adv[found]) != y[found]).all()
    less = fgsm(model, x[found], y[found], (eps[found] - 1.1e-4).clip(0))
    assert (mnist.classify(model, less) == y[found]).all()
    many, _ = smallest_eps(model, x, y, targeted=False, steps=3)
    assert (many[found] <= eps[found] + 1e-4).all()


def test_what_is_wrong_already_or_always_right_gets_no_noise():
    model = linear(np.zeros((6, 3)), np.eye(3)[0])
    x = np.full((2, 6), 0.5, np.float32)
    for label, expected in ((1, 0), (0, np.nan)):
        y = np.full(2, label)
        assert not nearest_noise(model, x, y).any()
        for steps in (1, 60):
            eps, x_adv = smallest_eps(model, x, y, targeted=False, steps=steps)
            np.testing.assert_array_equal(eps, expected)
            np.testing.assert_array_equal(x_adv, x)


def test_distances_are_those_of_the_attacks_and_zero_where_it_is_wrong_already(
    trained, digits, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(mnist, "load", trained.get)
    monkeypatch.setattr(distances, "STEPS", 60)
    monkeypatch.setattr(distances, "STARTS", 1)
    names = ["softmax", "mlp"]
    distances.main(["--models", *names, "--count", "20", "--output", str(tmp_path / "d.png")])
    table = capsys.readouterr().out
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    found = np.load(tmp_path / "d_distances.npz")
    assert found["names"].tolist() == names
    x, y = (part[:20] for part in digits)
    for name, l2, linf in zip(names, found["l2"], found["linf"], strict=True):
        right = mnist.classify(trained[name], x) == y
        for distance in (l2, linf):
            np.testing.assert_array_equal(distance > 0, right)
        eps, _ = smallest_eps(trained[name], x, y, targeted=False, steps=60)
        np.testing.assert_allclose(linf, eps)
        assert (l2 <= 28 * linf).all()  # of whatever lies within linf in each pixel
        assert f"{l2[right].mean():.4f}" in table


class Passes(keras.layers.Layer):
    """Hands its images on, and counts how often, and how often a gradient comes back."""

    def build(self, _):
        self.count = tf.Variable([0, 0])

    def call(self, x):
        @tf.custom_gradient
        def counted(x):
            def gradient(upstream):
                self.count.assign_add([0, 1])
                return upstream

            return tf.identity(x), gradient

        self.count.assign_add([1, 0])
        return counted(x)


def test_a_thousand_classes_take_no_more_passes_than_ten():
    counted = []
    for classes in (10, 1000):
        rng = np.random.default_rng(0)
        passes, dense = Passes(), keras.layers.Dense(classes)
        model = keras.Sequential([keras.Input((8,)), passes, dense])
        bias = np.where(np.arange(classes) < 10, 0, -9)
        dense.set_weights([0.1 * rng.normal(size=(8, classes)), bias])
        x = rng.uniform(size=(3, 8)).astype(np.float32)
        y = mnist.classify(model, x)
        nearest_noise(model, x, y, max_steps=1)  # the model is tried, once
        passes.count.assign([0, 0])
        _, steps = search(model, x, y, targeted=False, method="minimal", max_steps=60)
        counted.append(passes.count.numpy())
    np.testing.assert_array_equal(*counted)
    assert (steps == 9 + 9 * 10 + 60).all()
    # One more looks for what is not finite, and one improves what each rival came to.
    assert counted[0][1] == steps[0] + 1 + 10
    passes.count.assign([0, 0])
    smallest_eps(model, x, y, targeted=False, steps=200)
    # The linearised borders, and a first guess at each search.
    assert passes.count.numpy()[1] == 200 + 9 + 10 + 1


def test_the_other_methods_need_targets(trained, right):
    task = trained["mlp"], *right(trained["mlp"], 2)
    for method in ("sgd", "lbfgs"):
        with pytest.raises(ValueError, match="needs targets"):
            find_noise(*task, targeted=False, method=method)
    with pytest.raises(ValueError, match="confidence"):
        smallest_eps(*task, targeted=False, confidence=0.5)
