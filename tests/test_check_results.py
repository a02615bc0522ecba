"""The checker passes honest results, and names what is wrong with each kind of altered ones."""

import json
import re

import numpy as np
import pytest

from common import check_results, generate_5k, models, results
from common.command import Failure
from method2_fgsm import mnist_fast_gradient

EPS = 0.1


@pytest.fixture(scope="module")
def honest(trained, tmp_path_factory):
    """What the attack on 200 digits leaves, with the config as a dict; and two arrays more."""
    folder = tmp_path_factory.mktemp("honest")
    samples, output = str(folder / "samples.npz"), str(folder / "results.npz")
    generate_5k.main(["--count", "200", "--output", samples])
    arguments = ("--model", "mlp", "--eps", str(EPS), "--samples", samples, "--output", output)
    mnist_fast_gradient.main(arguments)
    found = results.load(folder / "results.npz")
    assert check_results.main([output]) == []
    more = {"y_targets": (found["y_trues"] + 1) % 10}
    return found | more | {"confidences": np.linspace(0.5, 1, len(found["xs"]))}


def rewrite(path, found):
    """Write arrays as they are, past the checks that `results.save` makes."""
    arrays = {name: array for name, array in found.items() if name != "config"}
    np.savez(path, **arrays, config=np.array(json.dumps(found["config"])))
    return path


def changed(array, row, value):
    array = array.copy()
    array[row] = value
    return array


def test_honest_results_pass(honest, tmp_path, capsys):
    assert check_results.main([str(rewrite(tmp_path / "r.npz", honest))]) == []
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "PASS"
    assert "predictions   ok" in printed


def other(name, row, value):
    """A change: `value` in one row of an array; a function of the array makes the value."""

    def change(found):
        new = found[name][row]
        return {name: changed(found[name], row, value(new) if callable(value) else value)}

    return change


def config(**settings):
    return lambda found: {"config": found["config"] | settings}


def relabel(found):
    y = changed(found["y_trues"], 7, (found["y_trues"][7] + 2) % 10)
    return {"y_trues": y, "y_preds": y}


def retouch(found):
    return {"xs": changed(found["xs"], (11, 14, 14), 0.5), "noises": 0.5 * found["noises"]}


def repeat_an_image(found):
    names = ("xs", "noises", "indices", *results.LABELS, "y_targets")
    return {name: changed(found[name], 12, found[name][0]) for name in names}


# What is done to the file, and what the checker has to say about it.
TAMPERED = {
    "an array is gone": (lambda f: {"noises": None}, "noises is missing"),
    "a smaller epsilon is claimed": (config(eps=0.05), "noise larger than eps 0.05"),
    "an impossible epsilon is claimed": (config(eps=-1), "eps is -1"),
    "noise beyond epsilon": (
        lambda f: {"noises": changed(f["noises"], 5, 0.3 - 0.5 * f["xs"][5])},
        r"noise larger than eps 0.1 in 1 of \d+ rows, first in row 5",
    ),
    "noise that is not the attack's": (
        lambda f: {"noises": 0 * f["noises"]}, "does not say y_preds_adversarial"
    ),
    "an invented success": (
        other("y_preds_adversarial", 6, lambda label: (label + 5) % 10),
        r"does not say y_preds_adversarial in 1 of \d+ rows, first in row 6",
    ),
    "another label": (relabel, "y_trues is not MNIST's label"),
    "a misclassified image kept": (
        other("y_preds", 8, lambda label: (label + 1) % 10), "misclassified before the attack"
    ),
    "a label that is none": (other("y_preds_adversarial", 9, 10), "adversarial beyond class 9"),
    "a target that is the label": (
        lambda f: {"y_targets": changed(f["y_targets"], 10, f["y_trues"][10])},
        "the target is the label",
    ),
    "another target than stated": (config(target=3), "y_targets is not 3"),
    "an image retouched": (retouch, r"xs is not the test image .* row 11"),
    "an image used twice": (repeat_an_image, r"there before \(indices\) in 1 .* row 12"),
    "an image that does not exist": (other("indices", 13, 10000), "indices beyond the 10000"),
    "a confidence beyond certainty": (other("confidences", 14, 1.1), "confidences outside"),
    "another model named": (config(model="softmax"), "does not say y_preds "),
    "no model named": (config(model=None), "does not say which model"),
    "no versions": (config(versions=None), "lacks the package versions"),
    "failures hidden": (config(full_test_set=True, left_out=0), "not the 10,000"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TAMPERED)
def test_each_kind_of_tampering_is_found_and_named(honest, tmp_path, capsys, kind):
    tamper, message = TAMPERED[kind]
    altered = {k: v for k, v in (honest | tamper(honest)).items() if v is not None}
    path = rewrite(tmp_path / "r.npz", altered)
    with pytest.raises(Failure, match=r"r\.npz failed: \d violation"):
        check_results.main([str(path)])
    violations = re.findall(r"^ *violation: (.*)$", capsys.readouterr().out, re.M)
    assert any(re.search(message, line) for line in violations), violations


def test_other_weights_do_not_confirm_the_predictions(honest, trained, tmp_path, capsys):
    shuffled = models.build("mlp")
    shuffled.set_weights([w[::-1] for w in trained["mlp"].get_weights()])
    weights = tmp_path / "shuffled.weights.h5"
    shuffled.save_weights(weights)
    path = rewrite(tmp_path / "r.npz", honest)
    with pytest.raises(Failure):
        check_results.main([str(path), "--weights", str(weights)])
    assert "does not say y_preds " in capsys.readouterr().out


def test_a_tie_may_go_either_way(honest, trained):
    """Minimal noise ends where two classes are level, and there rounding decides."""
    few = {k: v[:3] if k != "config" else v for k, v in honest.items()}
    model = models.build("softmax")
    model.set_weights([np.zeros((784, 10)), np.zeros(10)])
    assert check_results.check(few, model)["predictions"] == []
    bias = np.zeros(10)
    bias[0] = 0.01
    model.set_weights([np.zeros((784, 10)), bias])
    assert len(check_results.check(few, model)["predictions"]) == 2


def photographs(n=2, eps=0.02):
    rng = np.random.default_rng(0)
    xs = rng.random((n, 8, 8, 3), np.float32)
    signs = rng.choice(np.float32([-1, 1]), xs.shape)
    return {
        "xs": xs,
        "noises": np.clip(xs + np.float32(eps) * signs, 0, 1) - xs,
        "signs": signs,
        **{name: np.array([388, 12]) for name in results.LABELS},
        "config": {"model": "vgg16", "eps": eps, "target": None, "paths": ["a", "b"]}
        | {"versions": results.versions()},
    }


def test_photographs_are_checked_but_for_their_predictions(tmp_path, capsys):
    check_results.main([str(rewrite(tmp_path / "r.npz", photographs()))])
    printed = capsys.readouterr().out
    assert "predictions are not recomputed" in printed
    assert "predictions   not checked" in printed
    assert printed.splitlines()[-1] == "PASS"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signs": np.zeros((2, 8, 8, 3), np.float32)}, "noises are not the sign step"),
        ({"signs": np.full((2, 8, 8, 3), 0.5, np.float32)}, "signs other than"),
        ({"y_preds_adversarial": np.array([1, 1000])}, "beyond class 999"),
        ({"config": photographs()["config"] | {"paths": ["a"]}}, "2 paths"),
    ],
)
def test_altered_photographs_fail(tmp_path, capsys, change, message):
    path = rewrite(tmp_path / "r.npz", photographs() | change)
    with pytest.raises(Failure):
        check_results.main([str(path)])
    assert message in capsys.readouterr().out


def test_every_violation_of_every_file_is_listed(honest, tmp_path, capsys):
    good = rewrite(tmp_path / "good.npz", honest)
    altered = {"y_targets": honest["y_trues"], "indices": honest["indices"][::-1]}
    bad = rewrite(tmp_path / "bad.npz", honest | altered)
    with pytest.raises(Failure, match=r"^\S*bad\.npz failed: 3 violations$"):
        check_results.main([str(bad), str(good)])
    printed = capsys.readouterr().out
    assert re.findall("PASS|FAIL", printed) == ["FAIL", "PASS"]
    assert "the target is the label" in printed
    assert "xs is not the test image" in printed
