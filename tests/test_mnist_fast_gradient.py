"""The attack on the 5,000 digits, its figure, and accuracy against epsilon."""

import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from common import data, files, generate_5k, models, results
from common.command import Failure
from method2_fgsm import (
    accuracy_vs_epsilon,
    error_rates,
    fgsm,
    mnist_fast_gradient,
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


@pytest.mark.parametrize("name", models.NAMES)
def test_the_saved_results_are_the_attack(attacked, trained, drawn, name):
    found = attacked("--model", name, "--eps", "0.15")
    images, labels, indices = drawn
    right = models.classify(trained[name], images) == labels
    np.testing.assert_array_equal(found["xs"], images[right])
    np.testing.assert_array_equal(found["y_trues"], labels[right])
    np.testing.assert_array_equal(found["indices"], indices[right])
    assert found["config"]["left_out"] == (~right).sum()
    x_adv = fgsm.fgsm(trained[name], images[right], labels[right], 0.15)
    np.testing.assert_allclose(found["xs"] + found["noises"], x_adv, atol=1e-6)
    seen = models.classify(trained[name], found["xs"] + found["noises"])
    assert (seen == found["y_preds_adversarial"]).mean() > 0.995  # but for rounding
    assert np.abs(found["noises"]).max() <= 0.15 + 1e-6


def test_a_target_is_aimed_at_and_its_own_digits_are_left_out(attacked, capsys):
    found = attacked("--model", "softmax", "--target", "6", "--eps", "0.2")
    assert (found["y_trues"] != 6).all()
    assert (found["y_targets"] == 6).all()
    assert (found["y_preds_adversarial"] == 6).mean() > 0.5
    assert "seen as the target 6" in capsys.readouterr().out


def test_the_closing_table_counts_what_was_saved(attacked, capsys):
    found = attacked("--model", "mlp")
    printed = capsys.readouterr().out
    error = (found["y_preds_adversarial"] != found["y_trues"]).mean()
    assert f"error rate                   {error:10.2%}" in printed
    assert f"attacked                     {len(found['xs']):10d}" in printed


def test_the_same_run_gives_the_same_bytes(trained, drawn, tmp_path):
    for name in ("a.npz", "b.npz"):
        mnist_fast_gradient.main(["--output", str(tmp_path / name)])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_confidence_when_wrong_is_averaged_over_the_wrong_ones_alone():
    logits = np.log([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])
    error, confidence = models.wrong_label_confidence(logits, np.array([0, 0, 1]))
    assert error == pytest.approx(2 / 3)
    assert confidence == pytest.approx((0.8 + 0.9) / 2)
    error, confidence = models.wrong_label_confidence(logits, np.array([0, 1, 0]))
    assert error == 0
    assert np.isnan(confidence)


def test_missing_samples_name_the_script_that_makes_them(trained, tmp_path):
    with pytest.raises(Failure, match=r"python common/generate_5k\.py"):
        mnist_fast_gradient.main(["--samples", str(tmp_path / "none.npz")])


def test_the_figure_shows_pairs(attacked, tmp_path, capsys):
    attacked("--model", "mlp", "--eps", "0.2")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        size = ["--rows", "2", "--columns", "3", "--seed", str(seed)]
        output = ["--output", str(tmp_path / name)]
        visualize_mnist.main([str(tmp_path / "results.npz"), *size, *output])
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again
    assert first != other
    np.testing.assert_allclose(imread(tmp_path / "a", format="png").shape[:2], (440, 870), atol=1)
    assert "noise max           0.2000" in capsys.readouterr().out


def test_with_a_target_only_digits_that_became_it_are_drawn(
    attacked, tmp_path, monkeypatch, capsys
):
    found = attacked("--model", "softmax", "--eps", "0.15", "--target", "6")
    reached = np.flatnonzero(found["y_preds_adversarial"] == 6)
    turned = np.flatnonzero(found["y_preds_adversarial"] != found["y_trues"])
    assert 0 < len(reached) < len(turned)
    drawn, draw = [], visualize_mnist.draw
    monkeypatch.setattr(
        visualize_mnist,
        "draw",
        lambda f, chosen, *rest: drawn.extend(chosen) or draw(f, chosen, *rest),
    )
    capsys.readouterr()
    output = str(tmp_path / "a.png")
    visualize_mnist.main([str(tmp_path / "results.npz"), "--rows", "90", "--output", output])
    assert set(drawn) <= set(reached)
    assert len(drawn) == min(360, len(reached))
    assert f"into the target   {len(reached):8d}" in capsys.readouterr().out


def test_nothing_to_draw_says_so(attacked, tmp_path, capsys):
    attacked("--model", "mlp", "--eps", "0")
    assert re.search(r"mean confidence when wrong +-\n", capsys.readouterr().out)
    with pytest.raises(Failure, match="larger --eps"):
        visualize_mnist.main([str(tmp_path / "results.npz")])


def test_the_visualiser_needs_no_tensorflow(attacked, tmp_path):
    attacked("--model", "softmax", "--eps", "0.2")
    code = (
        "import sys\n"
        "from method2_fgsm import visualize_mnist\n"
        f"visualize_mnist.main([{str(tmp_path / 'results.npz')!r}, '--output', "
        f"{str(tmp_path / 'a.png')!r}])\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(files.ROOT)}, check=True)


@pytest.mark.parametrize("name", models.NAMES)
def test_accuracy_along_epsilon_is_that_of_the_attack(trained, digits, name):
    x, y = digits[0][:300], digits[1][:300]
    errors, confidences = error_rates.error_rates(trained[name], x, y, [0, 0.1, 0.25])
    for error, confidence, eps in zip(errors, confidences, (0, 0.1, 0.25), strict=True):
        logits = models.predict(trained[name], fgsm.fgsm(trained[name], x, y, eps))
        expected = models.wrong_label_confidence(logits, y)
        np.testing.assert_allclose((error, confidence), expected, atol=0.01)
    assert errors[0] < errors[1] < errors[2]


def test_accuracy_against_epsilon_is_drawn(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accuracy_vs_epsilon, "EPS", np.array([0, 0.25]))
    real = accuracy_vs_epsilon.data.load
    monkeypatch.setattr(
        accuracy_vs_epsilon.data, "load", lambda split: [part[:500] for part in real(split)]
    )
    accuracy_vs_epsilon.main(["--output", str(tmp_path / "a.png")])
    np.testing.assert_allclose(imread(tmp_path / "a.png").shape[:2], (500, 800), atol=1)
    assert "published: maxout network            89.4%       97.6%" in capsys.readouterr().out
