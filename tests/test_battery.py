"""The battery: together the attacks leave no more than each alone, and bent gradients are named."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import models
from common.command import Failure
from method2_fgsm import battery, robust_gradients, robustness, robustness_vs_epsilon

EPS = 0.08


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Few steps and queries."""
    for name, value in {"STEPS": 6, "SMALLEST_STEPS": 20, "QUERIES": 60, "DRAWS": 3}.items():
        monkeypatch.setattr(battery, name, value)
    monkeypatch.setattr(robustness, "FEW", 10)


@pytest.fixture
def x_y(digits):
    return [part[:60] for part in digits]


def test_every_attack_stays_in_the_box_and_all_together_leave_no_more_than_any(trained, x_y):
    model, (x, y) = trained["mlp"], x_y
    with_gradient, without = battery.attacks(trained["cnn"])
    attacks = {**with_gradient, **without}
    standing = {}
    for name, attack in attacks.items():
        x_adv = attack(model, x, y, EPS, 0)
        assert np.abs(x_adv - x).max() <= EPS + 1e-6, name
        assert x_adv.min() >= 0, name
        assert x_adv.max() <= 1, name
        standing[name] = models.classify(model, x_adv) == y
    clean = models.classify(model, x) == y
    together = battery.withstood_all(model, x, y, EPS, attacks.values())
    assert 0 < together.sum() < clean.sum()
    assert not (together & ~clean).any()
    for left in standing.values():
        assert together.sum() <= left.sum()


def test_bent_gradients_are_named_and_true_ones_are_not(trained, x_y, capsys, monkeypatch):
    """The same answers, with a gradient that points the wrong way."""
    hidden = keras.layers.Lambda(lambda x: 2 * tf.stop_gradient(x) - x)
    bent = keras.Sequential([keras.Input((28, 28)), hidden, trained["mlp"]])
    networks = {"cnn": bent, "mlp": trained["mlp"]}
    monkeypatch.setattr(models, "load", lambda name, path=None: networks[name])
    robustness.main(["--model", "cnn", "--eps", "0.2", "--count", "60"])
    assert "warning: sign step, transferred leaves" in capsys.readouterr().out
    networks |= {"cnn": trained["mlp"], "mlp": trained["softmax"]}
    robustness.main(["--model", "cnn", "--eps", "0.2", "--count", "60"])
    assert "warning" not in capsys.readouterr().out


def test_a_single_digit_does_not_make_a_masked_gradient():
    all_left = np.ones(100, bool)
    for fooled, lines in ((1, 0), (3, 0), (5, 1), (50, 1)):
        left = np.arange(100) >= fooled
        named = battery.masked({"projected steps": all_left}, {"random squares": left})
        assert len(named) == lines
    assert "on 50 of 100" in named[0]
    # As many the other way round: chance.
    halves = np.arange(100) < 50, np.arange(100) >= 51
    assert not battery.masked({"projected steps": halves[0]}, {"random squares": halves[1]})


def test_a_target_is_tried_only_on_what_is_left_and_the_likeliest_comes_first(trained, x_y):
    model, (x, y) = trained["softmax"], x_y
    logits = models.predict(model, x)
    order = battery.ranked(model, x, y)
    for row, label, ranks in zip(logits, y, order, strict=True):
        assert sorted([label, *ranks]) == list(range(10))
        assert (np.diff(row[ranks]) <= 0).all()
    tried = []

    def attempt(rows):
        tried.append(rows)
        return np.zeros_like(x[rows]) if len(tried) == 1 else x[rows]

    battery.first_hit(model, x, y, [attempt, attempt])
    blank = models.classify(model, np.zeros((1, 28, 28), np.float32))[0]
    np.testing.assert_array_equal(tried[1], tried[0][y[tried[0]] == blank])


@pytest.fixture
def three(trained, monkeypatch):
    """The MLP in the place of each of the three CNNs."""
    monkeypatch.setattr(
        models, "load", lambda name, path=None: trained["softmax" if name == "mlp" else "mlp"]
    )


def test_the_largest_epsilon_withstood_is_where_the_attacks_fail(three, x_y, monkeypatch, tmp_path):
    x, y = x_y
    eps = 0, 0.05, 0.1, 0.15, 0.3
    model, source = models.load("cnn"), models.load("mlp")
    largest = battery.largest_withstood(model, source, x, y, eps)
    right = models.classify(model, x) == y
    np.testing.assert_array_equal(largest >= 0, right)
    assert len(set(largest[right])) >= 3
    with_gradient, _ = battery.attacks(source)
    attack = with_gradient["projected steps, margin"]
    for place, size in enumerate(eps):
        stands = battery.withstood(model, x, y, size, attack) & right
        # One attack alone, all epsilons in turn: it leaves what all leave together, and more.
        assert (stands >= (largest >= place)).all()
        assert (stands > (largest >= place)).mean() < 0.1
    figure = tmp_path / "r.png"
    assert robustness_vs_epsilon.main(["--count", "20", "--output", str(figure)]) == [figure]


def test_the_gradient_drawn_is_that_of_the_loss(three, right):
    """By finite differences, at the three pixels that matter most."""
    x, y = right(models.load("cnn"), 1)
    gradient = robust_gradients.loss_gradient(models.load("cnn"), x, y)

    def loss(images):
        logits = models.predict(models.load("cnn"), images).astype(np.float64)
        return np.log(np.exp(logits).sum(axis=1)) - logits[:, y[0]]

    for place in np.argsort(-np.abs(gradient).ravel())[:3]:
        ahead, back = x.copy(), x.copy()
        ahead.ravel()[place] += 1e-3
        back.ravel()[place] -= 1e-3
        slope = (loss(ahead) - loss(back)) / 2e-3
        assert gradient.ravel()[place] == pytest.approx(slope[0], rel=0.05, abs=1e-5)


def test_gradients_and_noise_are_drawn_for_one_digit_of_each(three, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(robust_gradients, "EPS_STEPS", 20)
    monkeypatch.setattr(robust_gradients, "L2_STARTS", 1)
    figure = tmp_path / "g.png"
    assert robust_gradients.main(["--count", "80", "--output", str(figure)]) == [figure]
    with pytest.raises(Failure, match="--count"):
        robust_gradients.main(["--count", "3", "--output", str(figure)])
