"""The attack on the 5,000 digits, its figure, and accuracy against epsilon."""

import re
from unittest import mock

import numpy as np
import pytest

from common import data, generate_5k, plots, results
from common.command import Failure
from common.networks import mnist
from method2_fgsm import (
    accuracy_vs_epsilon,
    fgsm,
    mnist_fast_gradient,
    smallest_eps,
    visualize_mnist,
)


@pytest.fixture(scope="module")
def drawn(own_folders):
    """Six hundred samples, where the scripts look for them."""
    generate_5k.main(["--count", "600"])
    return data.load_samples()


@pytest.fixture
def attacked(trained, drawn, tmp_path):
    """A function: run the attack with some arguments and read its results."""

    def run(*arguments):
        output = tmp_path / "results.npz"
        mnist_fast_gradient.main([*arguments, "--output", str(output)])
        return results.load(output)

    return run


@pytest.mark.parametrize("name", mnist.NAMES)
def test_the_saved_results_are_the_attack(attacked, trained, drawn, capsys, name):
    found = attacked("--model", name, "--eps", "0.15")
    images, labels, indices = drawn
    right = mnist.classify(trained[name], images) == labels
    np.testing.assert_array_equal(found["xs"], images[right])
    np.testing.assert_array_equal(found["y_trues"], labels[right])
    np.testing.assert_array_equal(found["indices"], indices[right])
    assert found["config"]["left_out"] == (~right).sum()
    x_adv = fgsm.fgsm(trained[name], images[right], labels[right], 0.15)
    np.testing.assert_allclose(found["xs"] + found["noises"], x_adv, atol=1e-6)
    seen = mnist.classify(trained[name], found["xs"] + found["noises"])
    assert (seen == found["y_preds_adversarial"]).mean() > 0.995  # but for rounding
    assert np.abs(found["noises"]).max() <= 0.15 + 1e-6
    error = (found["y_preds_adversarial"] != found["y_trues"]).mean()
    assert f"error rate                   {error:10.2%}" in capsys.readouterr().out


def test_a_target_is_aimed_at_and_its_own_digits_are_left_out(attacked, capsys):
    found = attacked("--model", "softmax", "--target", "6", "--eps", "0.2")
    assert (found["y_trues"] != 6).all()
    assert (found["y_targets"] == 6).all()
    assert (found["y_preds_adversarial"] == 6).mean() > 0.5
    assert "seen as the target 6" in capsys.readouterr().out


def test_confidence_when_wrong_is_averaged_over_the_wrong_ones_alone():
    logits = np.log([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])
    error, confidence = mnist.wrong_label_confidence(logits, np.array([0, 0, 1]))
    assert error == pytest.approx(2 / 3)
    assert confidence == pytest.approx((0.8 + 0.9) / 2)
    error, confidence = mnist.wrong_label_confidence(logits, np.array([0, 1, 0]))
    assert error == 0
    assert np.isnan(confidence)


def test_with_a_target_only_digits_that_became_it_are_drawn(attacked, tmp_path):
    found = attacked("--model", "softmax", "--eps", "0.15", "--target", "6")
    reached = np.flatnonzero(found["y_preds_adversarial"] == 6)
    turned = np.flatnonzero(found["y_preds_adversarial"] != found["y_trues"])
    assert 0 < len(reached) < len(turned)
    with mock.patch.object(visualize_mnist, "draw", return_value=plots.figure(1, 1, "")) as draw:
        arguments = ("--rows", "90", "--output", str(tmp_path / "a.png"))
        visualize_mnist.main([str(tmp_path / "results.npz"), *arguments])
    _, drawn, *_ = draw.call_args.args
    assert set(drawn) <= set(reached)
    assert len(drawn) == min(360, len(reached))


def test_nothing_to_draw_says_so(attacked, tmp_path, capsys):
    attacked("--model", "mlp", "--eps", "0")
    assert re.search(r"mean confidence when wrong +-\n", capsys.readouterr().out)
    with pytest.raises(Failure, match="larger --eps"):
        visualize_mnist.main([str(tmp_path / "results.npz")])


@pytest.mark.parametrize("name", mnist.NAMES)
def test_accuracy_along_epsilon_is_that_of_the_attack(trained, digits, name):
    x, y = digits[0][:300], digits[1][:300]
    errors, confidences = accuracy_vs_epsilon.error_rates(trained[name], x, y, [0, 0.1, 0.25])
    for error, confidence, eps in zip(errors, confidences, (0, 0.1, 0.25), strict=True):
        logits = mnist.predict(trained[name], fgsm.fgsm(trained[name], x, y, eps))
        expected = mnist.wrong_label_confidence(logits, y)
        np.testing.assert_allclose((error, confidence), expected, atol=0.01)
    assert errors[0] < errors[1] < errors[2]


def test_many_steps_stay_within_epsilon_and_fool_at_least_as_often(trained, right):
    model = trained["mlp"]
    x, y = right(model, 60)
    for targeted in (False, True):
        labels = (y + 1) % 10 if targeted else y

        def success(x_adv, labels=labels, targeted=targeted):
            return ((mnist.classify(model, x_adv) == labels) == targeted).mean()

        one = fgsm.fgsm(model, x, labels, 0.08, targeted=targeted)
        many = smallest_eps.within_eps(model, x, labels, eps=0.08, steps=40, targeted=targeted)
        assert np.abs(many - x).max() <= 0.08 + 1e-6
        assert many.min() >= 0
        assert many.max() <= 1
        assert success(many) >= success(one)
        assert success(many) > 0
    unmoved = smallest_eps.within_eps(model, x, y, eps=0, steps=40)
    assert (unmoved == x).all()
