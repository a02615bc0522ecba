"""The two studies of one digit seen as another: epsilon.py and two_to_six.py."""

import re

import numpy as np
import pytest

from common import files
from common.command import Failure
from common.networks import mnist
from method2_fgsm import epsilon, fgsm, source_to_target, two_to_six
from method2_fgsm.smallest_eps import smallest_eps

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
    ("script", "arguments", "name"),
    [
        (epsilon, ("--source", "3"), "epsilon_mlp_3_to_6.png"),
        (two_to_six, ("--target", "8"), "2s_as_8s_mlp.png"),
    ],
)
def test_figures_of_other_digits_get_another_name(
    trained, tmp_path, monkeypatch, script, arguments, name
):
    monkeypatch.setattr(files, "IMG", tmp_path)
    assert script.main(["--model", "mlp", "--count", "1", *arguments]) == [tmp_path / name]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("script", [epsilon, two_to_six])
def test_both_take_digits_of_ones_own(script, trained, right, tmp_path, capsys):
    x, y = right(trained["mlp"], 2, source=2)
    samples = tmp_path / "mine.npz"
    np.savez(samples, images=(255 * x).round().astype(np.uint8), labels=y)
    arguments = ["--model", "mlp", "--samples", str(samples)]
    assert script.main(arguments)[0].name.endswith("_mlp_mine.png")
    printed = capsys.readouterr().out
    assert "correctly classified 2s into a 6" in printed
    assert re.findall(r"^ +(\d+) +(?:\d\.|nan)", printed, re.M) == ["0", "1"]
    with pytest.raises(Failure, match=r"mine\.npz has 0 correctly classified 3s"):
        script.main([*arguments, "--source", "3"])
