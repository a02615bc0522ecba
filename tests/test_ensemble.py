"""Together the attacks leave no more than each alone, and bent gradients are named."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import data
from common.command import Failure
from common.networks import mnist
from method2_fgsm import robust_gradients, robustness, robustness_vs_epsilon
from method2_fgsm.pgd import pgd
from method2_fgsm.robust import bounds, ensemble
from method2_fgsm.robust.square import square

EPS = 0.08


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Few steps and queries."""
    for name, value in {"STEPS": 4, "SMALLEST_STEPS": 10, "QUERIES": 30, "DRAWS": 2}.items():
        monkeypatch.setattr(ensemble, name, value)
    monkeypatch.setattr(robustness, "FEW", 5)


@pytest.fixture
def x_y(digits):
    return [part[:40] for part in digits]


@pytest.fixture(scope="module")
def nearest_mean(digits):
    """The linear network of the nearest mean digit: right on four in five, and not trained."""
    x, y = digits
    means = np.stack([x[y == digit].mean(axis=0).ravel() for digit in range(10)])
    dense = keras.layers.Dense(10)
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), dense])
    model.set_weights([means.T, -(means**2).sum(axis=1) / 2])
    return model


@pytest.mark.slow
def test_every_attack_stays_in_the_box_and_all_together_leave_what_each_of_them_leaves(
    trained, nearest_mean, x_y
):
    model, (x, y) = nearest_mean, x_y
    standing = {}
    for attacks in ensemble.attacks(trained["softmax"]):
        for name, attack in attacks.items():
            x_adv = attack(model, x, y, np.full(len(x), EPS), 0)
            assert np.abs(x_adv - x).max() <= EPS + 1e-6, name
            assert x_adv.min() >= 0, name
            assert x_adv.max() <= 1, name
            standing[name] = mnist.classify(model, x_adv) == y
    # The same attacks, each on what the others leave, along all epsilons.
    eps = 0, EPS / 4, EPS / 2, EPS, 4 * EPS
    falls = ensemble.smallest(model, x, y)[1]
    along = model, trained["softmax"], x, y, eps
    together = ensemble.withstood_along(*along, falls=falls)
    np.testing.assert_array_equal(together[0], mnist.classify(model, x) == y)
    assert (np.diff(together.astype(int), axis=0) <= 0).all()
    assert 0 < together[3].sum() < together[0].sum()
    left = np.all([together[0], *standing.values()], axis=0)
    assert (together[3] ^ left).sum() <= 1
    # From what is known at one epsilon, the same: nothing is tried there, nor below what stands.
    falls, stands = np.where(left, falls, np.minimum(falls, EPS)), np.where(left, EPS, 0)
    again = ensemble.withstood_along(*along, falls=falls, stands=stands)
    np.testing.assert_array_equal(again[3], left)
    assert (again ^ together).sum() <= 2


@pytest.mark.parametrize(
    "attack",
    [
        lambda *given: ensemble.random_noise(*given, np.full(len(given[1]), EPS), 3),
        lambda *given: square(*given, EPS, queries=40, seed=3),
        lambda *given: pgd(*given, EPS, steps=1, step_size=0, seed=3),
    ],
)
def test_the_random_numbers_of_an_image_do_not_depend_on_those_beside_it(nearest_mean, x_y, attack):
    x, y = x_y
    x_adv = attack(nearest_mean, x, y)
    rows = np.array([30, 3, 17, 18, 0])
    np.testing.assert_array_equal(attack(nearest_mean, x[rows], y[rows]), x_adv[rows])
    noise = (x_adv - x)[(np.abs(x_adv - x) > 0).any(axis=(1, 2))]
    assert len(noise) == len(np.unique(noise, axis=0)) > 5
    # A grey image beside one that is a little lighter: numbers of their own.
    grey = np.full((2, 28, 28), 0.5, np.float32) + np.float32([[[0]], [[1e-3]]])
    one, other = attack(nearest_mean, grey, mnist.classify(nearest_mean, grey)) - grey
    assert np.abs(one - other).max() > EPS / 10


@pytest.mark.slow
def test_of_the_card_a_curve_is_at_epsilon_what_its_row_says(monkeypatch, tmp_path):
    """Also where the sign step carries a wrong image past the border, and so mends it."""
    layers = keras.layers.Flatten(), keras.layers.Dense(2, "relu"), keras.layers.Dense(2)
    bent = keras.Sequential([keras.Input((28, 28)), *layers])
    # Of the mean grey g: class 1 for |g - 0.5| < 0.2.
    each = np.full((784, 1), 1 / 784)
    ends = np.array([[0, -1], [0, -1]])
    bent.set_weights([each * [1, -1], np.array([-0.5, 0.5]), ends, np.array([0, 0.2])])
    grey = np.float32([0.4, 0.45, 0.05, 0.95])[:, np.newaxis, np.newaxis]
    x, y = np.broadcast_to(grey, (4, 28, 28)), np.zeros(4, np.int64)
    assert (mnist.classify(bent, x) == y).tolist() == [False, False, True, True]
    monkeypatch.setattr(data, "load", lambda split: (x, y))
    monkeypatch.setattr(mnist, "load", lambda name, path=None: bent)
    output = str(tmp_path / "r.png")
    _, written = robustness.main(["--model", "cnn", "--eps", "0.4", "--output", output])
    report = json.loads(written.read_text())
    curves, names = report["curves"], ("sign step", ensemble.MANY_STEPS, "all together")
    index = curves.pop("eps").index(0.4)
    assert [curve[0] for curve in curves.values()] == [0.5] * 3
    at_eps = [report["rows"][row]["share"] for row in names]
    assert [curve[index] for curve in curves.values()] == at_eps
    assert at_eps[0] == 0


def test_an_attack_that_breaks_a_proof_ends_the_card(nearest_mean, x_y, monkeypatch, tmp_path):
    monkeypatch.setattr(mnist, "load", lambda name, path=None: nearest_mean)
    wrong = np.flatnonzero(mnist.classify(nearest_mean, x_y[0]) == x_y[1])[2]
    monkeypatch.setattr(bounds, "proven", lambda model, x, y, eps: np.arange(len(x)) == wrong)
    arguments = ["--model", "cnn", "--eps", "0.25", "--count", "40", "--output"]
    with pytest.raises(Failure, match=rf"image {wrong}: .* at eps 0\.\d+, though 0\.25"):
        robustness.main([*arguments, str(tmp_path / "r.png")])
    assert not list(tmp_path.iterdir())


def test_bent_gradients_are_named_and_true_ones_are_not(nearest_mean, x_y):
    """The same answers, with a gradient that points the wrong way."""
    hidden = keras.layers.Lambda(lambda x: 2 * tf.stop_gradient(x) - x)
    bent = keras.Sequential([keras.Input((28, 28)), hidden, nearest_mean])
    for model, named in (bent, True), (nearest_mean, False):
        left = [
            {
                name: ensemble.withstood(model, *x_y, 0.2, kind[name])
                for name in kind.keys() & {"sign step", "sign step, transferred"}
            }
            for kind in ensemble.attacks(nearest_mean)
        ]
        lines = ensemble.masked(*left)
        assert [line.startswith("sign step, transferred leaves") for line in lines] == [
            True
        ] * named


def test_a_single_digit_does_not_make_a_masked_gradient():
    all_left = np.ones(100, bool)
    for fooled, lines in ((1, 0), (3, 0), (5, 1), (50, 1)):
        left = np.arange(100) >= fooled
        named = ensemble.masked({"projected steps": all_left}, {"random squares": left})
        assert len(named) == lines
    assert "on 50 of 100" in named[0]
    # As many the other way round: chance.
    halves = np.arange(100) < 50, np.arange(100) >= 51
    assert not ensemble.masked({"projected steps": halves[0]}, {"random squares": halves[1]})


def test_the_likeliest_target_comes_first(nearest_mean, x_y):
    model, (x, y) = nearest_mean, x_y
    logits = mnist.predict(model, x)
    for row, label, ranks in zip(logits, y, ensemble.ranked(model, x, y), strict=True):
        assert sorted([label, *ranks]) == list(range(10))
        assert (np.diff(row[ranks]) <= 0).all()


def test_the_gradient_drawn_is_that_of_the_loss(trained, right):
    """By finite differences, at the three pixels that matter most."""
    x, y = right(trained["mlp"], 1)
    gradient = robust_gradients.loss_gradient(trained["mlp"], x, y)

    def loss(images):
        logits = mnist.predict(trained["mlp"], images).astype(np.float64)
        return np.log(np.exp(logits).sum(axis=1)) - logits[:, y[0]]

    for pixel in np.argsort(-np.abs(gradient).ravel())[:3]:
        ahead, back = x.copy(), x.copy()
        ahead.ravel()[pixel] += 1e-3
        back.ravel()[pixel] -= 1e-3
        slope = (loss(ahead) - loss(back)) / 2e-3
        assert gradient.ravel()[pixel] == pytest.approx(slope[0], rel=0.05, abs=1e-5)


@pytest.mark.slow
def test_gradients_noise_and_curves_of_three_networks_are_drawn(
    trained, digits, monkeypatch, tmp_path
):
    """The MLP in the place of each CNN, and one digit of each kind."""
    x, y = digits
    good = np.flatnonzero(mnist.classify(trained["mlp"], x[:200]) == y[:200])
    chosen = good[np.unique(y[good], return_index=True)[1]]
    monkeypatch.setattr(data, "load", lambda split: (x[chosen], y[chosen]))
    networks = dict.fromkeys(("cnn", "cnn_adversarial", "cnn_robust"), trained["mlp"])
    networks["mlp"] = trained["softmax"]
    monkeypatch.setattr(mnist, "load", networks.__getitem__)
    monkeypatch.setattr(robust_gradients, "EPS_STEPS", 2)
    monkeypatch.setattr(robust_gradients, "L2_STARTS", 1)
    monkeypatch.setattr(robustness_vs_epsilon, "EPS", (0, 0.05, 0.3))
    figure = tmp_path / "g.png"
    arguments = ["--output", str(figure), "--count"]
    assert robust_gradients.main([*arguments, "10"]) == [figure]
    with pytest.raises(Failure, match="no 3 among 3 digits: ask for more with --count"):
        robust_gradients.main([*arguments, "3"])
    assert robustness_vs_epsilon.main([*arguments, "5"]) == [figure]
