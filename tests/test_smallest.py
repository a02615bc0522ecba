"""The smallest noise and the smallest epsilon, to a target and to the nearest wrong answer, against
closed forms and enumeration.

(tests/test_exact.py sets them beside linear programmes, and tests/test_noise.py has more on the
smallest noise.)
"""

import itertools
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import brentq

from common.networks import mnist
from method1_noise_optimization import distances
from method1_noise_optimization.attack import find_noise, reached, search, sizes
from method2_fgsm import fgsm
from method2_fgsm import smallest_eps as eps_search
from method2_fgsm.smallest_eps import smallest_eps, within_eps


@pytest.mark.parametrize("targeted", [True, False])
def test_one_step_goes_as_far_as_it_has_to(trained, few, right, targeted):
    model = trained["mlp"]
    x, y = few(model, 25) if targeted else right(model, 25)
    eps, x_adv = smallest_eps(model, x, y, targeted=targeted)
    found = np.isfinite(eps)
    assert found.sum() > 5
    np.testing.assert_array_equal(x_adv[~found], x[~found])
    x, y, eps = x[found], y[found], eps[found]
    np.testing.assert_array_equal(x_adv[found], fgsm.fgsm(model, x, y, eps, targeted=targeted))
    assert ((mnist.classify(model, x_adv[found]) == y) == targeted).all()
    less = fgsm.fgsm(model, x, y, (eps - 1.1e-4).clip(0), targeted=targeted)
    assert ((mnist.classify(model, less) == y) != targeted).all()
    many, _ = smallest_eps(model, x, y, targeted=targeted, steps=3)
    assert (many <= eps + 1e-4).all()


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


@pytest.mark.parametrize("steps", [1, 20])
def test_an_image_of_the_target_needs_nothing_and_an_unreachable_one_gets_nan(steps):
    model = one_score(lambda m: m - 0.5)
    x = np.stack([np.full((28, 28), 0.7), np.zeros((28, 28)), np.zeros((28, 28))])
    eps, x_adv = smallest_eps(model, x, np.array([1, 1, 1]), max_eps=0.4, steps=steps)
    np.testing.assert_array_equal(eps, [0, np.nan, np.nan])
    np.testing.assert_array_equal(x_adv, x.astype(np.float32))
    eps, _ = smallest_eps(model, x, np.array([1, 1, 1]), steps=steps)
    np.testing.assert_allclose(eps, [0, 0.5, 0.5], atol=2e-4)


def test_more_confidence_needs_more_eps(trained, right):
    model = trained["softmax"]
    x, _ = right(model, 12, source=2)
    target = np.full(12, 6)
    for steps in (1, 40):
        enough, _ = smallest_eps(model, x, target, steps=steps)
        more, x_adv = smallest_eps(model, x, target, confidence=0.9, steps=steps)
        assert (more > enough).all()
        p = mnist.softmax(mnist.predict(model, x_adv))[:, 6]
        assert (p > 0.9).all()
        assert (p < 0.95).all()


def test_a_batch_is_no_larger_than_its_bytes(monkeypatch, trained, few):
    x, target = few(trained["softmax"], 12)
    at_once, _ = smallest_eps(trained["softmax"], x, target)
    monkeypatch.setattr(mnist, "MOST_BYTES", 28 * 28 * 4 * 5)
    with mock.patch.object(eps_search, "_reached", wraps=eps_search._reached) as tried:
        by_five, _ = smallest_eps(trained["softmax"], x, target)
    assert max(call.args[-1].size for call in tried.call_args_list) == 5
    np.testing.assert_array_equal(by_five, at_once)


def test_many_steps_need_less_than_one_and_stay_within_what_they_say(trained, few):
    model = trained["mlp"]
    x, target = few(model, 12)
    one, _ = smallest_eps(model, x, target)
    for steps in (2, 60):
        eps, x_adv = smallest_eps(model, x, target, steps=steps)
        found = np.isfinite(eps)
        assert (eps[np.isfinite(one)] <= one[np.isfinite(one)] + 1e-6).all()
        assert (mnist.classify(model, x_adv)[found] == target[found]).all()
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1
        size = np.abs(x_adv - x).max(axis=(1, 2))
        np.testing.assert_allclose(size[found], eps[found], atol=1e-6)
    assert found.all()
    easier = np.isfinite(one)
    assert eps[easier].mean() < 0.9 * one[easier].mean()
    order = np.random.default_rng(0).permutation(len(x))
    again, _ = smallest_eps(model, x[order], target[order], steps=60, batch_size=5)
    np.testing.assert_allclose(again, eps[order], rtol=2e-2)
    # Within a limit that some do not reach.
    limit = float(np.median(eps))
    x_adv = within_eps(model, x, target, limit, steps=60)
    stays = (x_adv == x).all(axis=(1, 2))
    assert 0 < stays.sum() < len(x)
    assert np.abs(x_adv - x).max() <= limit + 1e-6
    assert (mnist.classify(model, x_adv)[~stays] == target[~stays]).all()
    np.testing.assert_array_equal(within_eps(model, x, target, 0, steps=60), x)


# The nearest wrong answer -------------------------------------------------------------------------


def nearest_noise(model, x, y, **settings):
    return find_noise(model, x, y, targeted=False, method="minimal", **settings)


def linear(weights, bias):
    """A Keras model with the logits x W + b."""
    model = keras.Sequential([keras.Input(weights.shape[:1]), keras.layers.Dense(len(bias))])
    model.layers[-1].set_weights([weights, bias])
    return model


def test_a_linear_model_is_left_through_the_nearest_half_space():
    """With a the slope of z_k - z_y the nearest point is clip(x + μ a), or clip(x + ε sign a)."""
    classes, rng = 5, np.random.default_rng(5)
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


@pytest.mark.slow
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


def test_the_steps_of_a_search_are_the_gradients_it_takes_however_many_classes_there_are():
    count = tf.Variable(0)

    @tf.custom_gradient
    def counting(x):
        def gradient(upstream):
            count.assign_add(1)
            return upstream

        return tf.identity(x), gradient

    rng = np.random.default_rng(0)
    dense = keras.layers.Dense(1000)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Lambda(counting), dense])
    bias = np.where(np.arange(1000) < 10, 0, -9)
    dense.set_weights([0.1 * rng.normal(size=(8, 1000)), bias])
    x = rng.uniform(size=(3, 8)).astype(np.float32)
    y = mnist.classify(model, x)
    nearest_noise(model, x, y, max_steps=1)  # the model is tried, once
    count.assign(0)
    _, steps = search(model, x, y, targeted=False, method="minimal", max_steps=60)
    assert (steps == 9 + 9 * 10 + 60).all()
    # One more looks for what is not finite, and one improves what each rival came to.
    assert count.numpy() == steps[0] + 1 + 10
    count.assign(0)
    smallest_eps(model, x, y, targeted=False, steps=200)
    # The linearised borders, and a first guess at each search.
    assert count.numpy() == 200 + 9 + 10 + 1


def test_the_other_methods_need_targets(trained, right):
    task = trained["mlp"], *right(trained["mlp"], 2)
    for method in ("sgd", "lbfgs"):
        with pytest.raises(ValueError, match="needs targets"):
            find_noise(*task, targeted=False, method=method)
    with pytest.raises(ValueError, match="confidence"):
        smallest_eps(*task, targeted=False, confidence=0.5)
