"""Noise that shows nothing, and how often a model takes it for a digit."""

import numpy as np

from common.networks import mnist
from method2_fgsm import rubbish


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
