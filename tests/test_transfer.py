"""Transfer tables hold what they say; networks of other layers are trained as they are named."""

import re
from unittest import mock

import keras
import numpy as np
import pytest

from common import generate_5k
from common.networks import mnist, training
from method1_noise_optimization import attack, szegedy_table, transfer
from method2_fgsm import fgsm


@pytest.fixture(scope="module")
def shallow(trained, digits):
    """Two of the models, and 15 digits that both classify correctly."""
    networks = [trained["softmax"], trained["mlp"]]
    x, y = (part[:100] for part in digits)
    right = mnist.correctly_classified(networks, x, y, "the test set")[:15]
    return networks, x[right], y[right]


def test_amplified_noise_has_the_size_asked_for_and_the_same_direction(digits):
    x = digits[0][:20]
    noise = 0.01 * np.random.default_rng(0).standard_normal(x.shape, np.float32)
    for size in (0.1, 0.001):  # it grows and shrinks
        images = transfer.amplified(x, noise, size)
        np.testing.assert_allclose(attack.distortions(images - x), size, rtol=1e-3)
        free = (images > 0) & (images < 1)
        assert (np.sign(images - x) == np.sign(noise))[free].all()
    bright = np.full_like(x, 0.99)  # as far as the box allows
    np.testing.assert_array_equal(transfer.amplified(bright, bright, 0.5), 1)


def test_the_diagonal_is_the_attacks_own_success(shallow):
    networks, x, y = shallow
    table, sizes, agreement = transfer.sign_table(networks, x, y, 0.1, 0)
    assert table.shape == (3, 2)
    for number, model in enumerate(networks):
        x_adv = fgsm.fgsm(model, x, y, 0.1)
        for other, shown in enumerate(networks):
            assert table[number, other] == (mnist.classify(shown, x_adv) != y).mean()
        assert sizes[number] == pytest.approx(attack.distortions(x_adv - x).mean())
    np.testing.assert_allclose(np.diag(agreement), 1)
    assert ((agreement >= 0) & (agreement <= 1)).all()


def test_minimal_noise_fools_its_own_network_and_gaussian_noise_does_far_less(shallow):
    tables = transfer.noise_tables(*shallow, 0.1, 0)
    found, _, _ = tables["as found"]
    np.testing.assert_array_equal(np.diag(found), 1)
    amplified, sizes, unclipped = tables["amplified"]
    np.testing.assert_allclose(sizes, 0.1, rtol=1e-3)
    assert amplified[:2].min() > 2 * amplified[2].max()
    # Of the same size, but without the bias that clipping gives it.
    assert (unclipped <= amplified[2]).all()
    off = ~np.eye(2, dtype=bool)
    assert (amplified[:2][off] >= found[:2][off]).all()


def test_the_halves_are_disjoint_and_whole():
    with mock.patch.object(training, "fit", autospec=True) as fit:
        transfer.train_halves(0)
    first, same, second = (call.kwargs["rows"] for call in fit.call_args_list)
    np.testing.assert_array_equal(first, same)
    assert sorted([*first, *second]) == list(range(60000))


def test_transfer_draws_and_reports_the_same_again(trained, monkeypatch, tmp_path, capsys):
    generate_5k.main(["--count", "40"])
    monkeypatch.setattr(mnist, "load", trained.get)
    halves = [trained["mlp"], trained["softmax"], trained["mlp"]]
    monkeypatch.setattr(transfer, "train_halves", lambda seed: halves)
    output, runs = tmp_path / "t.png", []
    for _ in range(2):
        capsys.readouterr()
        options = ["--models", "softmax", "mlp", "--count", "6", "--output", str(output)]
        assert transfer.main(options) == [output]
        runs.append((output.read_bytes(), capsys.readouterr().out))
    assert runs[0] == runs[1]
    assert runs[0][0].startswith(b"\x89PNG")
    assert runs[0][1].count("Gaussian noise") == 7


def test_on_networks_of_the_paper_the_nearest_digit_is_nearest(trained, monkeypatch, capsys):
    generate_5k.main(["--count", "40"])
    monkeypatch.setattr(szegedy_table, "PUBLISHED", {"fc10": (0.074, 0.062)})
    monkeypatch.setattr(attack, "STARTS", 2)
    monkeypatch.setattr(mnist, "load", lambda name: trained["softmax"])
    assert szegedy_table.main(["--count", "4"]) == []
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("FC10")
    lbfgs, minimal, nearest, *_ = (float(number) for number in re.findall(r"0\.\d{4}", line))
    assert nearest <= minimal <= 1.02 * lbfgs


def test_weight_decay_is_the_sum_of_squares_over_the_units():
    """Without a gradient of the data's, a step of gradient descent shows the decay alone."""
    model = training.fit(
        "fc30-10_sigmoid",
        lambda steps: keras.optimizers.SGD(1e-12),
        epochs=1,
        batch_size=100,
        seed=0,
        rows=slice(100),
        weight_decay=(3.0, 5.0),
    )
    first, second = (layer.kernel.numpy() for layer in model.layers[1:])
    expected = 3 * np.sum(first**2) / 30 + 5 * np.sum(second**2) / 10
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), expected, rtol=1e-5)
