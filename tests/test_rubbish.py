"""Noise that shows nothing, and how often a model takes it for a digit."""

import numpy as np

from common.networks import mnist
from method2_fgsm import rubbish


def test_rubbish_is_what_makes_a_model_confident():
    logits = np.log(np.array([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5], [0.4, 0.6]]))
    share, confidence = rubbish.taken_for_a_digit(logits)
    assert share == 0.75
    np.testing.assert_allclose(confidence, (0.9 + 0.7 + 0.6) / 3)
    share, confidence = rubbish.taken_for_a_digit(np.zeros((3, 10)))
    assert share == 0
    assert np.isnan(confidence)


def test_the_noise_is_gaussian_and_its_other_half_valid():
    raw, valid = rubbish.noise_images(500, 0)
    assert abs(raw.mean()) < 0.01
    assert abs(raw.std() - 1) < 0.01
    assert valid.min() == 0
    assert valid.max() == 1


def test_a_line_for_each_model(trained, capsys):
    assert rubbish.main(["--count", "50"]) == []
    printed = capsys.readouterr().out
    for name in mnist.NAMES:
        assert f"\n{mnist.title(name)} " in printed
