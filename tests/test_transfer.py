"""Transfer tables hold what they say; networks of other layers are trained as they are named."""

import re
from unittest import mock

import keras
import numpy as np
import pytest

from common import generate_5k
from common.networks import mnist, training
from method1_noise_optimization import attack, szegedy_table, transfer, transferability
from method2_fgsm import fgsm

NOISE_SIZE = 0.1


@pytest.fixture(scope="module")
def shallow(trained, digits):
    """Two of the models, and 25 digits that both classify correctly."""
    networks = [trained["softmax"], trained["mlp"]]
    x, y = (part[:200] for part in digits)
    right = mnist.correctly_classified(networks, x, y, "the test set")[:25]
    return networks, x[right], y[right]


def test_amplified_noise_has_the_size_asked_for_and_the_same_direction(digits):
    x = digits[0][:20]
    noise = 0.01 * np.random.default_rng(0).standard_normal(x.shape, np.float32)
    images = transferability.amplified(x, noise, NOISE_SIZE)
    assert images.min() >= 0
    assert images.max() <= 1
    np.testing.assert_allclose(attack.distortions(images - x), NOISE_SIZE, rtol=1e-4)
    free = (images > 0) & (images < 1)
    assert (np.sign(images - x) == np.sign(noise))[free].all()
    # It shrinks as well as it grows, as far as the box allows.
    small = transferability.amplified(x, noise, 0.001)
    np.testing.assert_allclose(attack.distortions(small - x), 0.001, rtol=1e-3)
    bright = np.full_like(x, 0.99)
    np.testing.assert_array_equal(transferability.amplified(bright, bright, 0.5), 1)


def test_the_diagonal_is_the_attacks_own_success(shallow):
    networks, x, y = shallow
    table, sizes, agreement = transferability.sign_table(networks, x, y, 0.1, 0)
    assert table.shape == (3, 2)
    for number, model in enumerate(networks):
        x_adv = fgsm.fgsm(model, x, y, 0.1)
        for other, shown in enumerate(networks):
            assert table[number, other] == (mnist.classify(shown, x_adv) != y).mean()
        assert sizes[number] == pytest.approx(attack.distortions(x_adv - x).mean())
    np.testing.assert_allclose(np.diag(agreement), 1)
    assert ((agreement >= 0) & (agreement <= 1)).all()


def test_minimal_noise_fools_its_own_network_and_gaussian_noise_does_far_less(shallow):
    networks, x, y = shallow
    tables = transferability.noise_tables(networks, x, y, NOISE_SIZE, 0)
    targets = attack.random_targets(y, 0)
    found, sizes, _ = tables["as found"]
    for number, model in enumerate(networks):
        noise = attack.find_noise(model, x, targets, method="minimal")
        own = mnist.classify(model, x + noise) != y
        assert found[number, number] == own.mean() == 1
        assert sizes[number] == pytest.approx(attack.distortions(noise).mean(), rel=1e-4)
    amplified, sizes, unclipped = tables["amplified"]
    np.testing.assert_allclose(sizes, NOISE_SIZE, rtol=1e-3)
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
    output = tmp_path / "t.png"
    runs = []
    for _ in range(2):
        capsys.readouterr()
        assert transfer.main(["--count", "10", "--output", str(output)]) == [output]
        runs.append((output.read_bytes(), capsys.readouterr().out))
    assert runs[0] == runs[1]
    assert output.read_bytes().startswith(b"\x89PNG")
    assert runs[0][1].count("Gaussian noise") == 7


def test_on_networks_of_the_paper_the_nearest_digit_is_nearest(trained, monkeypatch, capsys):
    generate_5k.main(["--count", "40"])
    networks = dict.fromkeys(szegedy_table.PUBLISHED, trained["mlp"]) | {"fc10": trained["softmax"]}
    monkeypatch.setattr(mnist, "load", networks.get)
    assert szegedy_table.main(["--count", "4"]) == []
    lines = capsys.readouterr().out.splitlines()[-3:]
    for name, line in zip(networks, lines, strict=True):
        assert line.startswith(mnist.title(name))
        lbfgs, minimal, nearest = (float(number) for number in re.findall(r"0\.\d{4}", line))
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
