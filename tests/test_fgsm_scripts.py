"""The scripts of method 2: results and figures, one digit seen as another, noise seen as digits."""

import re
from unittest import mock

import numpy as np
import pytest

from common import data, files, generate_5k, plots, results
from common.command import Failure
from common.networks import mnist
from method2_fgsm import (
    accuracy_vs_epsilon,
    epsilon,
    fgsm,
    mnist_fast_gradient,
    rubbish,
    source_to_target,
    two_to_six,
    visualize_mnist,
)
from method2_fgsm.smallest_eps import smallest_eps


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
    found = attacked("--model", "mlp", "--eps", "0.15")
    images, labels, indices = drawn
    right = mnist.classify(trained["mlp"], images) == labels
    np.testing.assert_array_equal(found["xs"], images[right])
    np.testing.assert_array_equal(found["y_trues"], labels[right])
    np.testing.assert_array_equal(found["indices"], indices[right])
    assert found["config"]["left_out"] == (~right).sum()
    x_adv = fgsm.fgsm(trained["mlp"], images[right], labels[right], 0.15)
    np.testing.assert_allclose(found["xs"] + found["noises"], x_adv, atol=1e-6)
    seen = mnist.classify(trained["mlp"], found["xs"] + found["noises"])
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
    error, confidence = accuracy_vs_epsilon.wrong_label_confidence(logits, np.array([0, 0, 1]))
    assert error == pytest.approx(2 / 3)
    assert confidence == pytest.approx((0.8 + 0.9) / 2)
    error, confidence = accuracy_vs_epsilon.wrong_label_confidence(logits, np.array([0, 1, 0]))
    assert error == 0
    assert np.isnan(confidence)


def test_nothing_to_draw_says_so(attacked, tmp_path, capsys):
    attacked("--model", "mlp", "--eps", "0")
    assert re.search(r"mean confidence when wrong +-\n", capsys.readouterr().out)
    with pytest.raises(Failure, match="larger --eps"):
        visualize_mnist.main([str(tmp_path / "results.npz")])


def test_accuracy_along_epsilon_is_that_of_the_attack(trained, digits):
    model, x, y = trained["mlp"], digits[0][:300], digits[1][:300]
    found = accuracy_vs_epsilon.accuracy_at(model, x, y, [0, 0.1, 0.25])
    for accuracy, confidence, eps in zip(*found, (0, 0.1, 0.25), strict=True):
        expected = accuracy_vs_epsilon.wrong_label_confidence(
            mnist.predict(model, fgsm.fgsm(model, x, y, eps)), y
        )
        np.testing.assert_allclose((1 - accuracy, confidence), expected, atol=0.01)
    first, second, third = found[0]
    assert first > second > third


def test_many_steps_stay_within_epsilon_and_reach_a_target_more_often(attacked):
    options = ("--model", "mlp", "--eps", "0.08", "--target", "6", "--steps")
    one, many = (attacked(*options, steps) for steps in ("1", "20"))
    fooled = [results.succeeded(found).mean() for found in (one, many)]
    assert 0 < fooled[0] < fooled[1]
    assert np.abs(many["noises"]).max() <= 0.08 + 1e-6


PAIR = source_to_target.Pair(2, 6, "2", "6", "2s", "6s")


def test_only_softmax_regression_before_clipping_is_a_straight_line(trained, right):
    eps = np.linspace(-1, 1, 11, dtype=np.float32)
    for name in ("softmax", "mlp"):
        x, _ = right(trained[name], 4, source=2)
        sign = fgsm.gradient_signs(trained[name], x, np.full(4, 6))
        raw = epsilon.scores(trained[name], x, sign, eps, clip=False)
        clipped = epsilon.scores(trained[name], x, sign, eps, clip=True)
        assert (epsilon.bend(eps, raw).max() < 1e-3) == (name == "softmax")
        assert epsilon.bend(eps, clipped).max() > 0.1
        # The loss decreases with epsilon: the score of the 6 is higher at the left end.
        assert (raw[:, 0, 6] > raw[:, -1, 6]).all()


def test_two_to_six_takes_one_eps_or_the_smallest_that_is_sure(trained, right, tmp_path, capsys):
    digits = ["--model", "mlp", "--source", "7", "--target", "3", "--count", "2"]

    def shown(*arguments):
        two_to_six.main([*digits, *arguments, "--output", str(tmp_path / "t.png")])
        printed = capsys.readouterr().out
        return np.array(re.findall(r"^ +\d+   (\d\.\d{4}) ", printed, re.M), float)

    np.testing.assert_array_equal(shown("--eps", "1/8"), 0.125)
    x, y = right(trained["mlp"], 10, source=7)
    chosen = source_to_target.choose(trained["mlp"], x, y, PAIR._replace(target=3), 2)
    sure, _ = smallest_eps(trained["mlp"], chosen.x, np.array([3, 3]), confidence=0.5)
    assert (sure > chosen.eps).all()
    np.testing.assert_allclose(shown(), sure, atol=1e-4)


def test_the_chosen_images_are_the_first_that_work(trained, digits):
    """Against the definition, one image after the other."""
    x, y = digits
    model = trained["mlp"]
    all_2s = np.flatnonzero((y == 2) & (mnist.classify(model, x) == 2))
    choice = source_to_target.choose(model, x[all_2s], all_2s, PAIR, 3)
    works, tried = [], 0
    for index in np.flatnonzero(y == 2):
        if mnist.classify(model, x[[index]])[0] == 2:
            tried += 1
            if np.isfinite(smallest_eps(model, x[[index]], np.array([6]))[0][0]):
                works.append(index)
        if len(works) == 3:
            break
    assert choice.indices.tolist() == works
    assert choice.reach == (
        f"one step turns 3 of the first {tried} correctly classified 2s into a 6"
    )
    with pytest.raises(Failure, match=r"the test set has \d+ correctly classified 2s, not 5000"):
        two_to_six.main(["--count", "5000"])


@pytest.mark.parametrize(
    ("script", "name"),
    [(epsilon, "epsilon_mlp_2_to_8_mine.png"), (two_to_six, "2s_as_8s_mlp_mine.png")],
)
def test_both_take_digits_of_ones_own(script, name, trained, right, tmp_path, capsys):
    x, y = right(trained["mlp"], 2, source=2)
    samples = tmp_path / "mine.npz"
    np.savez(samples, images=(255 * x).round().astype(np.uint8), labels=y)
    arguments = ["--model", "mlp", "--samples", str(samples)]
    assert script.main([*arguments, "--target", "8"]) == [files.IMG / name]
    printed = capsys.readouterr().out
    assert "correctly classified 2s into a 8" in printed
    assert re.findall(r"^ +(\d+) +(?:\d\.|nan)", printed, re.M) == ["0", "1"]
    with pytest.raises(Failure, match=r"mine\.npz has 0 correctly classified 3s"):
        script.main([*arguments, "--source", "3"])


def test_rubbish_is_what_makes_a_model_confident():
    logits = np.log(np.array([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5], [0.4, 0.6]]))
    np.testing.assert_allclose(rubbish.taken_for_a_digit(logits), (0.75, (0.9 + 0.7 + 0.6) / 3))
    np.testing.assert_equal(rubbish.taken_for_a_digit(np.zeros((3, 10))), (0, np.nan))


def test_the_noise_is_gaussian_its_other_half_valid_and_each_model_has_a_line(trained, capsys):
    raw, valid = rubbish.noise_images(500, 0)
    assert abs(raw.mean()) < 0.01
    assert abs(raw.std() - 1) < 0.01
    assert (valid.min(), valid.max()) == (0, 1)
    assert rubbish.main(["--count", "50"]) == []
    printed = capsys.readouterr().out
    for name in mnist.NAMES:
        assert f"\n{mnist.title(name)} " in printed
