"""The fewest pixels: no more than brute force finds, exact where the classifier is linear."""

import itertools

import keras
import numpy as np
import pytest

from common import check_results, generate_5k, results
from common.networks import mnist
from logreg_softmax.fewest_pixels import fewest_pixels, fewest_to_target
from method1_noise_optimization import attack_mnist
from method1_noise_optimization.attack import find_noise, random_targets, reached


def fewest(model, x, y, **settings):
    noise = find_noise(model, x, y, method="fewest", **settings)
    assert (x + noise).min() >= 0
    assert (x + noise).max() <= 1
    return noise


def count(noise):
    return (noise != 0).reshape(len(noise), -1).sum(axis=1)


def network(shape, *units, scale=1.0):
    """A network with random weights: (h, w[, c]) or (d,) to logits, ReLU between the layers."""
    rng = np.random.default_rng(len(units))
    *hidden, last = units
    dense = [*(keras.layers.Dense(n, "relu") for n in hidden), keras.layers.Dense(last)]
    model = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), *dense])
    for layer in dense:
        layer.set_weights([rng.normal(size=weight.shape) for weight in layer.get_weights()])
    dense[-1].set_weights([scale * weight for weight in dense[-1].get_weights()])
    return model


@pytest.mark.parametrize("confidence", [None, 0.9])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("units", [(4,), (16, 4)])
def test_brute_force_over_the_subsets_of_twelve_pixels_finds_no_fewer(units, targeted, confidence):
    """All 3^12 ways to leave each pixel, or to make it black or white.

    A linear classifier needs no others.  With ReLU a grey one may do better, but no search that
    ends at black and white can beat them."""
    model, images = network((12,), *units), 12
    x = np.random.default_rng(1).uniform(0.2, 0.8, (images, 12)).astype(np.float32)
    second, y = mnist.predict(model, x).argsort(axis=1)[:, -2:].T
    y = second if targeted else y
    ways = np.array(list(itertools.product([0, 1, 2], repeat=12)))
    ways = ways[np.argsort((ways > 0).sum(axis=1), kind="stable")]
    best = np.full(images, np.inf)
    for i in range(images):
        points = np.choose(ways, [x[i], 0, 1]).astype(np.float32)
        p = mnist.softmax(mnist.predict(model, points, 100_000))
        hits = ((p.argmax(axis=1) == y[i]) == targeted) & (p.max(axis=1) > (confidence or 0))
        if hits.any():
            best[i] = (ways[hits.argmax()] > 0).sum()
    noise = fewest(model, x, y, targeted=targeted, confidence=confidence)
    hit = reached(model, x, noise, y, targeted=targeted, confidence=confidence or 0)
    assert np.isfinite(best).sum() > 8
    np.testing.assert_array_equal(hit, np.isfinite(best))
    found, best = count(noise)[hit], best[hit]
    assert (found >= best).all()
    if targeted or len(units) > 1:
        assert found.sum() <= 1.05 * best.sum()
    else:
        np.testing.assert_array_equal(found, best)
    if len(units) == 1 and not targeted and not confidence:
        np.testing.assert_array_equal(
            found, fewest_pixels(*model.layers[-1].get_weights(), x, y)[hit]
        )


def test_softmax_regression_needs_no_more_than_the_exact_fewest(trained, right):
    model = trained["softmax"]
    x, y = right(model, 100)
    optimum = fewest_pixels(*model.get_weights(), x, y)
    found = count(fewest(model, x, y, targeted=False))
    assert (found >= optimum).all()
    assert found.mean() <= 1.01 * optimum.mean()
    target = random_targets(y, 0)[:8]
    counts, bounds = fewest_to_target(*model.get_weights(), x[:8], target)
    assert (bounds <= counts).all()
    noise = fewest(model, x[:8], target)
    assert reached(model, x[:8], noise, target).all()
    assert (count(noise) >= bounds).all()
    assert count(noise).sum() <= 1.05 * counts.sum()
    # Towards any one target it takes no fewer than towards the best of all.
    assert (bounds >= optimum[:8]).all()


@pytest.mark.parametrize("targeted", [False, True])
def test_no_pixel_can_be_left_out(trained, right, targeted):
    model = trained["mlp"]
    x, y = right(model, 20)
    y = random_targets(y, 0) if targeted else y
    noise = fewest(model, x, y, targeted=targeted)
    assert reached(model, x, noise, y, targeted=targeted).all()
    for image, r, label in zip(x, noise, y, strict=True):
        every = np.arange(784).reshape(28, 28)
        one_less = np.stack([np.where(every == j, 0, r) for j in np.flatnonzero(r)])
        again = reached(model, image[np.newaxis], one_less, label, targeted=targeted)
        assert not again.any()


def test_the_unit_of_the_logits_does_not_matter(trained, right):
    model = keras.models.clone_model(trained["mlp"])
    model.set_weights(trained["mlp"].get_weights())
    x, y = right(model, 20)
    noise = fewest(model, x, y, targeted=False)
    model.layers[-1].set_weights([128 * weight for weight in model.layers[-1].get_weights()])
    np.testing.assert_array_equal(fewest(model, x, y, targeted=False), noise)


def test_a_pixel_in_colour_counts_once():
    """For one rival the pixels of the largest gains, each the sum over its channels."""
    model = network((5, 4, 3), 2)
    kernel, _ = model.layers[-1].get_weights()
    x = np.random.default_rng(2).uniform(0.2, 0.8, (20, 5, 4, 3)).astype(np.float32)
    y = mnist.classify(model, x)
    noise = fewest(model, x, y, targeted=False)
    a = np.stack([kernel[:, 1 - label] - kernel[:, label] for label in y]).reshape(x.shape)
    gains = np.sort(np.maximum(a * (1 - x), -a * x).sum(axis=3).reshape(20, 20))[:, ::-1]
    logits = mnist.predict(model, x)
    missing = logits[np.arange(20), y] - logits[np.arange(20), 1 - y]
    changed = (noise != 0).any(axis=3).reshape(20, 20).sum(axis=1)
    np.testing.assert_array_equal(
        changed, (gains.cumsum(axis=1) < missing[:, None]).sum(axis=1) + 1
    )


def test_what_is_wrong_already_or_never_needs_no_pixel(trained, right):
    x, y = right(trained["mlp"], 5)
    assert not fewest(trained["mlp"], x, (y + 1) % 10, targeted=False).any()
    assert not fewest(trained["mlp"], x, y).any()
    constant = network((6,), 3, scale=0.0)
    assert not fewest(constant, np.full((2, 6), 0.5, np.float32), np.zeros(2, int)).any()


def test_a_saved_result_is_what_check_results_finds(trained, tmp_path):
    generate_5k.main(["--count", "40"])
    output = tmp_path / "results_softmax_fewest.npz"
    run = ["--model", "softmax", "--method", "fewest", "--target", "any", "--output", str(output)]
    attack_mnist.main(run)
    check_results.main([str(output)])
    assert results.succeeded(results.load(output)).all()
