"""Whatever images, labels, sizes and weights an attack is given, it keeps its promises.

Hypothesis draws them: no image, one, an odd number; all black, all white, any pixels between;
targets that are the prediction already; networks that are linear or convolutional,
with logits in the millions, or with a gradient that is zero everywhere.  The examples are the same
in every run.
"""

from functools import cache
from math import ceil
from unittest import mock

import keras
import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from common.networks import mnist
from common.search import checks
from common.search.logits import ROUNDING_SINGLE
from method1_noise_optimization import attack, fewest, grey_levels, lbfgs
from method1_noise_optimization.attack import METHODS, REGULARIZATIONS
from method2_fgsm import fgsm, pgd
from method2_fgsm import smallest_eps as search
from method2_fgsm.robust.square import square
from method2_fgsm.smallest_eps import TOLERANCE, smallest_eps

SETTINGS = settings(deadline=None, derandomize=True, max_examples=12, database=None)
COUNTS = (0, 1, 3, 7)
WEIGHTS = ("random", "random", "huge", "constant", "zero")
NETWORKS = ("vector", "colour")
# TensorFlow takes subnormal numbers for zeros.
PIXELS = st.sampled_from((0.0, 1.0)), st.floats(0, 1, width=32, allow_subnormal=False)
ROUNDING = 1e-6  # of float32, for numbers about 1
RESOLUTION = 0.01  # of the search for the smallest eps


@cache
def network(name):
    """A small network: made once, its weights are changed."""
    layers = {
        "vector": [keras.Input((4,)), keras.layers.Dense(2)],
        "colour": [
            keras.Input((6, 4, 3)),
            keras.layers.Conv2D(3, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
        ],
    }
    return keras.Sequential(layers[name])


@pytest.fixture(scope="module", autouse=True)
def networks():
    """All of them before Hypothesis draws, because Keras uses Python's random numbers for it."""
    for name in NETWORKS:
        network(name)
    with mock.patch.object(search, "RESOLUTION", RESOLUTION):
        yield


def reweigh(model, kind, seed):
    """Random weights; logits in the millions; logits that never change; or nothing but zeros."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=w.shape) for w in model.get_weights()]
    *_, kernel, bias = weights
    if kind == "huge":
        kernel *= 1e6
        bias *= 1e6
    elif kind == "constant":
        kernel *= 0
    elif kind == "zero":
        weights = [0 * w for w in weights]
    model.set_weights(weights)


def logits(model, x):
    if not len(x):  # Keras's own convolution cannot do that
        return np.zeros((0, model.output_shape[-1]))
    return model(x, training=False).numpy().astype(np.float64)


def lead(model, x, y):
    """How far the logit of y is ahead of the others, and how much of that may be rounding."""
    z = logits(model, x)
    rows = np.arange(len(x))
    chosen = z[rows, y]
    slack = 1e-5 * np.abs(z).max(axis=1, initial=0)
    z[rows, y] = -np.inf
    return chosen - z.max(axis=1, initial=-np.inf), slack


@st.composite
def problems(draw, weights=WEIGHTS):
    """A network, images for it, and a label for each."""
    name = draw(st.sampled_from(NETWORKS))
    kind, seed = draw(st.sampled_from(weights)), draw(st.integers(0, 99))
    note(f"{name}, {kind} weights, seed {seed}")
    model = network(name)
    reweigh(model, kind, seed)
    shape = (draw(st.sampled_from(COUNTS)), *model.input_shape[1:])
    x = draw(arrays.arrays(np.float32, shape, elements=draw(st.sampled_from(PIXELS))))
    if draw(st.booleans()):
        return model, x, logits(model, x).argmax(axis=1)
    classes = model.output_shape[-1]
    return model, x, draw(arrays.arrays(np.int64, len(x), elements=st.integers(0, classes - 1)))


sizes = st.one_of(st.sampled_from((0.0, 1.0)), st.floats(0, 1))


def assert_images_like(x_adv, x):
    assert x_adv.shape == x.shape
    assert x_adv.dtype == np.float32
    assert ((x_adv >= 0) & (x_adv <= 1)).all()  # and so finite


@SETTINGS
@given(problems(), sizes, st.booleans(), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_one_sign_step_and_many_end_at_an_image_within_eps(problem, eps, targeted, steps, seed):
    model, x, y = problem
    one = fgsm.fgsm(model, x, y, eps, targeted=targeted)
    sign = fgsm.gradient_signs(model, x, y)
    assert np.isin(sign, (-1, 0, 1)).all()
    step = np.float32(-eps if targeted else eps)
    np.testing.assert_allclose(one, np.clip(x + step * sign, 0, 1), atol=ROUNDING)
    with mock.patch.object(pgd, "projected_step", wraps=pgd.projected_step) as projected:
        many = pgd.pgd(model, x, y, eps, steps=steps, seed=seed)
    assert projected.call_count <= steps
    for x_adv in (one, many):
        assert_images_like(x_adv, x)
        assert (np.abs(x_adv - x) <= eps + ROUNDING).all()
        assert eps > 0 or (x_adv == x).all()


@SETTINGS
@given(problems(weights=("constant", "zero")), sizes)
def test_without_a_gradient_no_attack_moves_an_image_further_than_its_start(problem, eps):
    model, x, y = problem
    assert not fgsm.gradient_signs(model, x, y).any()
    np.testing.assert_array_equal(fgsm.fgsm(model, x, y, eps), x)
    found, x_adv = smallest_eps(model, x, y)
    ahead, _ = lead(model, x, y)
    least = ROUNDING_SINGLE * np.abs(logits(model, x)).max(axis=1, initial=0)
    np.testing.assert_array_equal(found, np.where(ahead > least, 0, np.nan))
    np.testing.assert_array_equal(x_adv, x)
    once, many = (pgd.pgd(model, x, y, eps, steps=steps) for steps in (1, 5))
    np.testing.assert_array_equal(once, many)


@SETTINGS
@given(problems(), st.sampled_from((0.01, 0.3, 1.0)), st.sampled_from((0.0, 0.0, 0.9)))
def test_the_smallest_eps_is_one_at_which_the_image_is_its_target(problem, max_eps, confidence):
    model, x, y = problem
    eps, x_adv = smallest_eps(model, x, y, max_eps=max_eps, confidence=confidence)
    grid = np.minimum(np.arange(ceil(max_eps / RESOLUTION - 1e-9) + 1) * RESOLUTION, max_eps)
    assert_images_like(x_adv, x)
    assert eps.shape == y.shape
    assert eps.dtype == np.float32
    found = np.isfinite(eps)
    assert ((eps[found] >= 0) & (eps[found] <= np.float32(max_eps))).all()

    sign = fgsm.gradient_signs(model, x, y)
    distance = np.nan_to_num(eps).reshape(-1, *[1] * (x.ndim - 1))
    np.testing.assert_array_equal(x_adv, np.clip(x - distance * sign, 0, 1))
    ahead, slack = lead(model, x_adv, y)
    assert (ahead > -slack)[found].all()
    p = mnist.softmax(logits(model, x_adv))[np.arange(len(x)), y]
    assert (p > confidence - 1e-4)[found & (slack < 1e-4)].all()
    if confidence == 0:
        ahead, slack = lead(model, x, y)
        assert (eps[ahead > 2 * slack] == 0).all()
        for tried in grid:
            ahead, slack = lead(model, np.clip(x - np.float32(tried) * sign, 0, 1), y)
            assert not (ahead > 2 * slack)[~found].any()
            assert not (ahead > 2 * slack)[found & (eps > tried + TOLERANCE)].any()


how = st.fixed_dictionaries(
    {
        "regularization": st.sampled_from(REGULARIZATIONS),
        "max_steps": st.sampled_from((1, 7, 30)),
        "learning_rate": st.sampled_from((1e-3, 0.1, 1e4)),
        "batch_size": st.sampled_from((3, 1000)),
    }
)


@pytest.mark.parametrize("method", METHODS)
@SETTINGS
@given(problems(), how)
def test_noise_stays_in_the_box_and_within_its_steps(method, problem, how):
    model, x, y = problem
    x_adv, steps = attack.search(model, x, y, method=method, **how)
    assert_images_like(x_adv, x)
    assert steps.shape == y.shape
    assert steps.dtype == np.int64
    # One minimisation at the smallest c, then one for each halving of the range of c.
    starts = {"lbfgs": 1 + lbfgs.ROUNDS, "fewest": len(fewest.ROUNDS)}.get(method, 1)
    most = how["max_steps"] * starts
    assert ((steps >= 0) & (steps <= most)).all()
    ahead, slack = lead(model, x, y)
    done = ahead > 2e-4 + slack  # they are their targets already
    np.testing.assert_array_equal(x_adv[done], x[done])


def levels(model, x, y, **settings):
    """`grey_levels.search`, which takes whole pixels, of images in [0, 1]."""
    return grey_levels.search(
        model, (255 * x).astype(settings.pop("pixels", np.uint8)), y, **settings
    )


# A wrong value of each setting: what else is wrong, test_checks.py asks.
IN_A_BOX = {"eps": 1.01, "batch_size": 0}
WRONG_SETTINGS = {
    fgsm.fgsm: IN_A_BOX,
    pgd.pgd: {"steps": 0, "step_size": -1, "loss": "hinge", "y_target": 0} | IN_A_BOX,
    square: {"queries": 0} | IN_A_BOX,
    smallest_eps: {"max_eps": 0, "steps": 0, "confidence": 1.0, "batch_size": 2.5},
    attack.find_noise: {
        "method": "magic",
        "regularization": "l3",
        "learning_rate": 1e39,
        "max_steps": 0,
        "starts": 1.5,
        "batch_size": 0,
    },
    levels: {"levels": 256, "confidence": 1.0, "max_steps": 0, "pixels": np.float64},
}


@pytest.mark.parametrize("attacked", WRONG_SETTINGS, ids=lambda attacked: attacked.__name__)
def test_wrong_settings_are_named(attacked):
    x, y = np.full((3, 6, 4, 3), 0.5, np.float32), np.array([0, 1, 2])
    needed = {"eps": 0.1} if "eps" in WRONG_SETTINGS[attacked] else {}
    for setting, value in WRONG_SETTINGS[attacked].items():
        with pytest.raises(ValueError, match=setting):
            attacked(network("colour"), x, y, **needed | {setting: value})


def test_what_is_no_label_is_refused():
    x, y = np.full((3, 6, 4, 3), 0.5, np.float32), np.array([0, 1, 2])
    for labels in (y - 1, y + 3, y[1:], y[:, np.newaxis], y + 0.5, y > 0):
        with pytest.raises(ValueError, match="labels"):
            checks.checked(network("colour"), x, labels)
