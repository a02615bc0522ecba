"""The attack on the 5,000 digits, its figure, and accuracy against epsilon."""

import re
from unittest import mock

import numpy as np
import pytest

from common import data, generate_5k, plots, results
from common.command import Failure
from common.networks import mnist
from method2_fgsm import accuracy_vs_epsilon, fgsm, mnist_fast_gradient, visualize_mnist


@pytest.fixture(scope="module")
def drawn(own_folders):
    """Three hundred samples, where the scripts look for them."""
    generate_5k.main(["--count", "300"])
    return data.load_samples()


@pytest.fixture
def attacked(trained, drawn, tmp_path):
    """A function: run the attack with some arguments and read its results."""

    def run(*arguments):
        output = tmp_path / "results.npz"
        mnist_fast_gradient.main([*arguments, "--output", str(output)])
        return results.load(output)

    return run


def test_the_saved_results_are_the_attack(attacked, trained, drawn, capsys):
    name = "mlp"
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
    accuracy = (found["y_preds_adversarial"] == found["y_trues"]).mean()
    assert f"accuracy                     {accuracy:10.2%}" in capsys.readouterr().out


def test_a_target_is_aimed_at_and_only_digits_that_became_it_are_drawn(attacked, tmp_path, capsys):
    found = attacked("--model", "softmax", "--target", "6", "--eps", "0.15")
    assert (found["y_trues"] != 6).all()
    assert (found["y_targets"] == 6).all()
    reached = np.flatnonzero(found["y_preds_adversarial"] == 6)
    turned = np.flatnonzero(found["y_preds_adversarial"] != found["y_trues"])
    assert 0 < len(reached) < len(turned)
    line = f"seen as the target 6         {len(reached) / len(found['y_trues']):10.2%}"
    assert line in capsys.readouterr().out
    with mock.patch.object(visualize_mnist, "draw", return_value=plots.figure(1, 1, "")) as draw:
        arguments = ("--rows", "90", "--output", str(tmp_path / "a.png"))
        visualize_mnist.main([str(tmp_path / "results.npz"), *arguments])
    _, drawn, *_ = draw.call_args.args
    assert sorted(drawn) == list(reached)


def test_confidence_when_wrong_is_averaged_over_the_wrong_ones_alone():
    logits = np.log([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])
    error, confidence = mnist.wrong_label_confidence(logits, np.array([0, 0, 1]))
    assert error == pytest.approx(2 / 3)
    assert confidence == pytest.approx((0.8 + 0.9) / 2)
    error, confidence = mnist.wrong_label_confidence(logits, np.array([0, 1, 0]))
    assert error == 0
    assert np.isnan(confidence)


def test_nothing_to_draw_says_so(attacked, tmp_path, capsys):
    attacked("--model", "mlp", "--eps", "0")
    assert re.search(r"mean confidence when wrong +-\n", capsys.readouterr().out)
    with pytest.raises(Failure, match="larger --eps"):
        visualize_mnist.main([str(tmp_path / "results.npz")])


def test_accuracy_along_epsilon_is_that_of_the_attack(trained, digits):
    model, x, y = trained["mlp"], digits[0][:300], digits[1][:300]
    errors, confidences = accuracy_vs_epsilon.error_rates(model, x, y, [0, 0.1, 0.25])
    for error, confidence, eps in zip(errors, confidences, (0, 0.1, 0.25), strict=True):
        expected = mnist.wrong_label_confidence(
            mnist.predict(model, fgsm.fgsm(model, x, y, eps)), y
        )
        np.testing.assert_allclose((error, confidence), expected, atol=0.01)
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("target", [(), ("--target", "6")])
def test_many_steps_stay_within_epsilon_and_fool_more_often(attacked, target):
    one, many = (
        attacked("--model", "mlp", "--eps", "0.08", "--steps", steps, *target)
        for steps in ("1", "20")
    )
    fooled = [results.succeeded(found).mean() for found in (one, many)]
    assert 0 < fooled[0] < fooled[1]
    assert np.abs(many["noises"]).max() <= 0.08 + 1e-6
