"""Interval bounds lie above everything that an image of the box can do, in float32 too."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from scipy.optimize import linprog

from common.networks import mnist
from logreg_softmax.linear_programme import smallest_linf
from method2_fgsm.fgsm import gradient_signs
from method2_fgsm.pgd import pgd
from method2_fgsm.robust import bounds
from method2_fgsm.robust.bounds import box, check, largest_proven_eps, margin_bounds, proven
from method2_fgsm.robust.square import square


def network(*stack, shape=(28, 28)):
    return keras.Sequential([keras.Input(shape), *stack])


def differences(model, x, y):
    """z_j - z_y as the network computes them in float32: float64 (n, classes)."""
    logits = mnist.predict(model, x).astype(np.float64)
    return logits - logits[np.arange(len(y)), y][:, np.newaxis]


def test_of_a_linear_model_the_bounds_are_the_exact_maximum(trained, digits):
    model, (x, y) = trained["softmax"], (part[:1000] for part in digits)
    weights, bias = (w.astype(np.float64) for w in model.get_weights())
    low, high = np.clip(x - 0.05, 0, 1).reshape(-1, 784), np.clip(x + 0.05, 0, 1).reshape(-1, 784)
    exact = np.empty((len(x), 10))
    for label in range(10):
        rows, slopes = y == label, weights - weights[:, [label]]
        exact[rows] = high[rows] @ slopes.clip(0) + low[rows] @ slopes.clip(None, 0)
        exact[rows] += bias - bias[label]
    bounds = margin_bounds(model, x, y, 0.05)
    assert (bounds >= exact).all()
    np.testing.assert_allclose(bounds, exact, atol=0.02)
    others = np.where(np.arange(10) == y[:, np.newaxis], -np.inf, exact).max(axis=1)
    answer = proven(model, x, y, 0.05)
    assert 0.3 < answer.mean() < 0.9
    clear = np.abs(others) > 0.02  # what float32 rounds
    np.testing.assert_array_equal(answer[clear], others[clear] < 0)
    assert not (answer & (others >= 0)).any()


def test_of_a_linear_model_the_largest_proven_epsilon_is_the_smallest_that_turns_it(trained, right):
    """To the nearest of nine targets, by linear programmes."""
    x, y = right(trained["softmax"], 6)
    nearest = np.full(len(x), np.inf)
    for shift in range(1, 10):
        target = (y + shift) % 10
        nearest = np.fmin(nearest, smallest_linf(*trained["softmax"].get_weights(), x, target)[0])
    largest = largest_proven_eps(trained["softmax"], x, y)
    assert (largest < nearest).all()
    np.testing.assert_allclose(largest, nearest, atol=5e-4)


def exact_maximum(w1, b1, w2, b2, low, high):
    """max w2·relu(W1 p + b1) + b2 over a box: a linear programme for each pattern of the units."""
    best = -np.inf
    for on in itertools.product((False, True), repeat=len(b1)):
        sign = np.where(on, 1, -1)
        found = linprog(
            -(w1[:, on] @ w2[list(on)]),
            A_ub=(-sign * w1).T,
            b_ub=sign * b1,
            bounds=np.stack([low, high], axis=1),
        )
        if found.status == 0:
            best = max(best, b1[list(on)] @ w2[list(on)] + b2 - found.fun)
    return best


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("apart", [True, False])
def test_two_hidden_units_against_the_exact_maximum_by_enumeration(seed, apart):
    """Units that see pixels of their own vary freely: there the bound is the maximum.  Otherwise
    it is off by no more than both units can move."""
    random = np.random.default_rng(seed)
    model = network(layers.Flatten(), layers.Dense(2, "relu"), layers.Dense(3), shape=(2, 2))
    w1, b1, w2, b2 = (random.normal(size=w.shape) for w in model.get_weights())
    if apart:
        w1 *= np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    model.set_weights([w1, b1 / 3, w2, b2])
    w1, b1, w2, b2 = (w.astype(np.float64) for w in model.get_weights())
    x, y, eps = random.random((1, 2, 2)).astype(np.float32), np.array([seed % 3]), 0.2
    low, high = (np.clip(x + e, 0, 1).ravel().astype(np.float64) for e in (-eps, eps))
    bounds = margin_bounds(model, x, y, eps)[0]
    for j in set(range(3)) - {seed % 3}:
        slope = w2[:, j] - w2[:, y[0]]
        exact = exact_maximum(w1, b1, slope, b2[j] - b2[y[0]], low, high)
        loose = 0 if apart else np.abs(slope) @ (np.abs(w1).T @ (high - low))
        assert exact <= bounds[j] <= exact + loose + 1e-4
    assert bounds[y[0]] == 0


def random_network(random):
    """A functional graph of every layer that is allowed, or nearly so, with random weights."""
    pick = lambda *choices: choices[random.integers(len(choices))]  # noqa: E731
    conv = {"padding": pick("same", "valid"), "strides": pick(1, 2), "use_bias": pick(True, False)}
    pool = {"padding": pick("same", "valid"), "strides": pick(1, 2)}
    image = keras.Input((pick(6, 7), pick(5, 8), 2))
    h = layers.Rescaling(pick(2.0, -1.5), offset=-0.7)(image)
    h = layers.Conv2D(3, pick(1, 2, 3), activation=pick("tanh", "linear", "leaky_relu"), **conv)(h)
    h = layers.BatchNormalization()(h)
    h = pick(layers.ReLU(max_value=0.7), layers.LeakyReLU(), layers.Activation("sigmoid"))(h)
    h = pick(layers.MaxPooling2D, layers.AveragePooling2D)(2, **pool)(h)
    inner = keras.Input(h.shape[1:])
    branch = keras.Model(inner, layers.Conv2D(3, 2, padding="same", activation="relu")(inner))
    h = layers.Add()([h, branch(h), branch(h)])
    flat = layers.Dropout(0.5)(layers.Reshape((-1,))(h)), layers.Flatten()(h)
    pools = layers.GlobalMaxPooling2D, layers.GlobalAveragePooling2D
    h = pick(*flat, *(pool()(h) for pool in pools))
    h = network(layers.Dense(5, "sigmoid"), layers.Dense(4), shape=h.shape[1:])(h)
    model = keras.Model(image, pick(h, layers.LeakyReLU()(h)))
    for variable in model.variables:
        if variable.dtype == "float32":
            values = random.normal(scale=0.7, size=variable.shape)
            variable.assign(np.abs(values) if "variance" in variable.path else values)
    return model


@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from([0, 1e-3, 0.1, 0.5]))
def test_no_image_of_the_box_exceeds_the_bounds(seed, eps):
    """At the corners that gradients and chance point at, of random graphs."""
    random = np.random.default_rng(seed)
    model = random_network(random)
    x = random.choice([0, 0.3, 0.9, 1], (3, *model.input_shape[1:])).astype(np.float32)
    y = random.integers(0, 4, 3)
    bounds = margin_bounds(model, x, y, eps)
    low, high = box(x, np.full(3, eps))
    corners = [np.where(random.random(x.shape) < 0.5, low, high) for _ in range(8)]
    for _ in range(3):
        corners += [
            np.where(gradient_signs(model, start, other) < 0, high, low)
            for start in (x, *corners[-3:])
            for other in ((y + 1) % 4, (y + 2) % 4)
        ]
        corners += [low + (high - low) * random.random(x.shape, np.float32), x]
    for p in corners:
        assert (differences(model, p, y) <= bounds).all()


def test_what_float32_rounds_is_counted():
    """Behind a black image the exact logits are known: no pixel moves, and all that is between
    them and the bounds is what each of 900 roundings can do in two sums."""
    random = np.random.default_rng(0)
    hidden = layers.Dense(900), layers.Dense(900, "leaky_relu")
    model = network(layers.Flatten(), *hidden, layers.Dense(40), shape=(2, 2))
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    x, y = np.zeros((1, 2, 2), np.float32), np.array([7])
    _, b1, w2, b2, w3, b3 = (w.astype(np.float64) for w in model.get_weights())
    h = b1 @ w2 + b2
    slope = np.where(h > 0, 1, 0.2)
    exact = (slope * h) @ w3 + b3
    bounds, found = margin_bounds(model, x, y, 0)[0], differences(model, x, y)[0]
    assert (found <= bounds).all()
    assert (found > exact - exact[7]).sum() > 5
    first = (slope * (np.abs(b1) @ np.abs(w2) + np.abs(b2))) @ np.abs(w3 - w3[:, [7]])
    last = (slope * np.abs(h)) @ np.abs(w3) + np.abs(b3)
    rounding = 900 * 2**-24 * (first + last + last[7])
    rounding[7] = 0
    assert (bounds - exact + exact[7] >= rounding).all()
    assert (bounds - exact + exact[7] <= 1.1 * rounding).all()


def test_float32_has_the_saturating_functions_to_the_accuracy_assumed():
    h = np.linspace(-25, 25, 1_000_001)
    for name, exact in (("sigmoid", 1 / (1 + np.exp(-h))), ("tanh", np.tanh(h))):
        found = np.array(getattr(keras.activations, name)(np.float32(h)))
        assert np.abs(found - exact).max() < 8 * 2**-24


@pytest.mark.parametrize(("name", "eps"), [("softmax", 0.03), ("cnn", 0.001)])
def test_no_attack_breaks_what_is_proven(trained, digits, name, eps):
    model, (x, y) = trained[name], (part[:60] for part in digits)
    sure = proven(model, x, y, eps)
    assert sure.mean() > 0.2
    x, y = x[sure], y[sure]
    for x_adv in (pgd(model, x, y, eps, steps=20), square(model, x, y, eps, queries=50)):
        assert (mnist.classify(model, x_adv) == y).all()


def test_a_larger_epsilon_proves_less_and_the_largest_that_is_proven_is(trained, digits):
    model, (x, y) = trained["mlp"], (part[:100] for part in digits)
    assert (proven(model, x, y, 0) == (mnist.classify(model, x) == y)).mean() > 0.98
    bounds = [margin_bounds(model, x, y, eps) for eps in (0, 0.01, 0.02, 0.3, 1)]
    for smaller, larger in itertools.pairwise(bounds):
        assert (smaller <= larger).all()
    largest = largest_proven_eps(model, x, y, batch_size=13)
    np.testing.assert_array_equal(np.isnan(largest), ~proven(model, x, y, 0))
    there = np.isfinite(largest)
    x, y, largest = x[there], y[there], largest[there]
    assert proven(model, x, y, largest).all()
    assert not proven(model, x, y, largest + 2**-13).any()


def test_float32_only_guesses_what_is_proven(trained, digits, monkeypatch):
    """However wrong it is, in either direction: what is tried in float64 counts."""
    model, (x, y) = trained["softmax"], (part[:60] for part in digits)
    right, exact = bounds.bisected(model, x, y), bounds.margin_bounds
    assert 0 < np.isfinite(right).sum() < 60

    def wrong(*given, dtype="float64", **settings):
        worse = np.where(np.arange(60) % 2, 0.3, -0.3)[: len(given[1]), np.newaxis]
        return exact(*given, **settings) + (worse if dtype == "float32" else 0)

    monkeypatch.setattr(bounds, "margin_bounds", wrong)
    np.testing.assert_array_equal(largest_proven_eps(model, x, y), right)


def test_a_box_holds_what_float32_makes_of_it():
    x = np.random.default_rng(0).random((50, 4, 4)).astype(np.float32)
    for eps in (0, 0.1, 0.3, 8 / 255):
        low, high = box(x, np.full(50, eps))
        added = np.clip(x + np.float32(eps), 0, 1), np.clip(x - np.float32(eps), 0, 1)
        for p in (*added, x):
            assert ((low <= p) & (p <= high)).all()
        assert (np.clip(x.astype(np.float64) - eps, 0, 1) >= low).all()
        assert (high - low <= 2 * eps + 4e-7).all()


def test_a_layer_without_bounds_is_named():
    for culprit, layer in (
        ("LayerNormalization", layers.LayerNormalization()),
        ("with_elu", layers.Dense(4, "elu", name="with_elu")),
        ("mixed_float16", layers.Dense(4, dtype="mixed_float16")),
    ):
        within = network(layer, layers.Dense(3), shape=(4,))
        with pytest.raises(ValueError, match=rf"the layer.*{culprit}"):
            margin_bounds(network(within, shape=(4,)), np.zeros((1, 4)), np.array([0]), 0.1)


def test_an_input_that_rounds_the_image_is_named():
    """Keras casts what a model is fed to the dtype of its input, whatever its layers compute in."""
    image = keras.Input((4,), dtype="float16", name="coarse")
    within = keras.Model(image, layers.Dense(3)(image))
    for model in (within, keras.Sequential([image, layers.Dense(3)]), network(within, shape=(4,))):
        with pytest.raises(ValueError, match=r"layer coarse .* float16, not in float32"):
            check(model)
    fine, x = keras.Sequential([keras.Input((4,), dtype="float64"), layers.Dense(3)]), np.eye(4)
    assert proven(fine, x, mnist.classify(fine, x), 1e-6).all()


def test_an_operation_between_layers_and_a_model_of_its_own_kind_are_named():
    image = keras.Input((4,))
    h = keras.ops.sin(layers.Dense(3)(image))
    x, y = np.zeros((1, 4)), np.array([0])
    with pytest.raises(ValueError, match="Sin"):
        margin_bounds(keras.Model(image, layers.Dense(3)(h)), x, y, 0.1)

    class Squared(keras.Model):
        def call(self, x):
            return super().call(x) ** 2

    with pytest.raises(ValueError, match="shows its layers"):
        margin_bounds(Squared(image, layers.Dense(3)(image)), x, y, 0.1)
