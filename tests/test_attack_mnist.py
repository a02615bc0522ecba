"""The scripts of method 1: what they save, print, draw and refuse."""

import re

import numpy as np
import pytest

from common import check_results, data, files, generate_5k, results
from common.command import Failure
from common.networks import mnist
from method1_noise_optimization import (
    attack,
    attack_mnist,
    compare_methods,
    every_pair,
    visualize_adv_examples,
)
from method1_noise_optimization.attack import sizes, summary


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    path = tmp_path_factory.mktemp("samples") / "s.npz"
    generate_5k.main(["--count", "80", "--output", str(path)])
    return path


@pytest.fixture(autouse=True)
def loaded(trained, samples, monkeypatch):
    """Eighty samples, where the scripts look for them, and the networks that are there."""
    monkeypatch.setattr(data, "SAMPLES", samples)
    monkeypatch.setattr(mnist, "load", lambda name, path=None: trained[name])


def run(folder, *arguments):
    path = folder / "r.npz"
    attack_mnist.main([*arguments, "--limit", "30", "--output", str(path)])
    return results.load(path)


def test_what_is_saved_are_hits_on_correctly_classified_digits(trained, tmp_path, capsys):
    found = run(tmp_path, "--method", "minimal", "--starts", "2")
    x, y, _ = (array[:30] for array in data.load_samples())
    right = mnist.classify(trained["mlp"], x) == y
    np.testing.assert_array_equal(found["xs"], x[right])
    np.testing.assert_array_equal(found["y_trues"], y[right])
    np.testing.assert_array_equal(found["y_preds"], found["y_trues"])
    assert found["config"]["left_out"] == (~right).sum()
    assert (found["y_targets"] != found["y_trues"]).all()
    np.testing.assert_array_equal(found["y_preds_adversarial"], found["y_targets"])
    seen = mnist.classify(trained["mlp"], np.clip(found["xs"] + found["noises"], 0, 1))
    np.testing.assert_array_equal(seen, found["y_targets"])
    out = capsys.readouterr().out
    assert f"{sizes(found['noises']).mean():.4f}" in out
    assert "100.00%" in out


def test_random_targets_are_all_other_digits_with_the_same_chance():
    y = np.repeat(np.arange(10), 900)
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (y, attack.random_targets(y, 0)), 1)
    assert not np.diag(counts).any()
    assert counts[~np.eye(10, dtype=bool)].min() > 60


def test_one_target_for_all_leaves_out_those_that_show_it_and_is_drawn(tmp_path, capsys):
    found = run(tmp_path, "--target", "3", "--regularization", "l1")
    assert (found["y_targets"] == 3).all()
    assert (found["y_trues"] != 3).all()
    assert found["config"]["regularization"] == "l1"
    assert "are a 3 already" in capsys.readouterr().out
    written = visualize_adv_examples.main([str(tmp_path / "r.npz")])
    assert written == [files.IMG / "noise_mlp_sgd_l1.png"]
    assert "reached the target" in capsys.readouterr().out


def test_too_few_steps_are_reported_and_saved(tmp_path, capsys):
    found = run(tmp_path, "--max-steps", "1")
    missed = found["y_preds_adversarial"] != found["y_targets"]
    assert missed.mean() > 0.5
    assert (found["steps"] == 1).all()
    assert "did not reach their target" in capsys.readouterr().out
    arrays = {name: found[name][missed] for name in found if name != "config"}
    results.save(tmp_path / "missed.npz", **arrays, config=found["config"])
    with pytest.raises(Failure, match="no image reached its target"):
        visualize_adv_examples.main([str(tmp_path / "missed.npz")])


def test_the_measures_are_those_of_the_papers():
    noises = np.zeros((2, 28, 28), np.float32)
    noises[0, 0, :4] = 0.5, -0.5, 0.5, 0.5
    np.testing.assert_allclose(sizes(noises), [1, 0])
    table = summary(noises, np.array([True, False]))
    assert "50.00%" in table
    assert f"{1 / 28 / 2:.4f}" in table  # sqrt(mean r²) is |r|_2 / 28


def test_any_other_digit_will_do(trained, tmp_path, capsys):
    found = run(tmp_path, "--target", "any", "--method", "minimal", "--starts", "1")
    assert re.search(r"reached another class +100\.00%", capsys.readouterr().out)
    assert "y_targets" not in found
    assert results.succeeded(found).all()
    assert (found["y_preds_adversarial"] != found["y_trues"]).all()
    assert not check_results.violations(found, trained["mlp"])
    with pytest.raises(SystemExit):
        attack_mnist.main(["--target", "any"])


def test_the_ways_that_need_no_target_and_every_pair_are_drawn_and_counted(capsys, monkeypatch):
    monkeypatch.setitem(compare_methods.WAYS["smallest ε, 500 steps"], "steps", 40)
    options = ["--limit", "10", "--model", "softmax", "--target", "any"]
    assert compare_methods.main(options) == [files.IMG / "noise_methods_softmax_any.png"]
    out = capsys.readouterr().out
    assert [way for way in compare_methods.WAYS if way in out] == list(compare_methods.WAYS)[-3:]
    (pairs,) = every_pair.main(["--count", "1", "--model", "softmax"])
    assert pairs.read_bytes().startswith(b"\x89PNG")
    assert "100.00% of 90" in capsys.readouterr().out
    with pytest.raises(Failure, match="correctly classified 0s"):
        every_pair.main(["--count", "1000"])
