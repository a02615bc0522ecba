"""Transfer tables hold what they say; networks of other layers are trained as they are named."""

import re

import keras
import numpy as np
import pytest
from matplotlib.image import imread

from common import data, generate_5k, models, train_mnist, training
from common.command import Failure
from method1_noise_optimization import attack, szegedy_table, transfer, transferability
from method2_fgsm import fgsm

NOISE_SIZE = 0.1


@pytest.fixture(scope="module")
def shallow(trained, digits):
    """Two of the models, and 25 digits that both classify correctly."""
    networks = [trained["softmax"], trained["mlp"]]
    return networks, *transferability.correctly_classified(
        networks, *(part[:200] for part in digits), 25
    )


def test_the_chosen_digits_are_the_first_that_all_get_right(shallow, digits):
    networks, x, y = shallow
    expected = [
        i
        for i in range(60)
        if all(models.classify(model, digits[0][[i]])[0] == digits[1][i] for model in networks)
    ]
    np.testing.assert_array_equal(x, digits[0][expected[:25]])
    np.testing.assert_array_equal(y, digits[1][expected[:25]])


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
            assert table[number, other] == (models.classify(shown, x_adv) != y).mean()
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
        own = attack.classify(model, x, noise) != y
        assert found[number, number] == own.mean() == 1
        assert sizes[number] == pytest.approx(attack.distortions(noise).mean(), rel=1e-4)
    amplified, sizes, unclipped = tables["amplified"]
    np.testing.assert_allclose(sizes, NOISE_SIZE, rtol=1e-3)
    assert amplified[:2].min() > 2 * amplified[2].max()
    # Of the same size, but without the bias that clipping gives it.
    assert (unclipped <= amplified[2]).all()
    off = ~np.eye(2, dtype=bool)
    assert (amplified[:2][off] >= found[:2][off]).all()


def test_the_halves_are_disjoint_and_whole(monkeypatch):
    used = []
    monkeypatch.setattr(training, "fit", lambda name, optimizer, rows, **_: used.append(rows))
    transfer.train_halves(0)
    first, same, second = used
    np.testing.assert_array_equal(first, same)
    assert sorted([*first, *second]) == list(range(60000))


@pytest.fixture
def few_digits(monkeypatch):
    """Training and test set of a few hundred digits, and a sample of forty."""
    generate_5k.main(["--count", "40"])
    real = data.load
    count = {"train": 1500, "test": 300}
    monkeypatch.setattr(data, "load", lambda split: [part[: count[split]] for part in real(split)])


def test_transfer_draws_and_reports_the_same_again(
    trained, few_digits, monkeypatch, tmp_path, capsys
):
    fit = training.fit
    # The halves of the real training set do not exist here.
    monkeypatch.setattr(
        training,
        "fit",
        lambda *args, rows, **kw: fit(*args, rows=rows[:6000] % 1500, **kw | {"epochs": 1}),
    )
    output = tmp_path / "t.png"
    runs = []
    for _ in range(2):
        try:
            assert transfer.main(["--count", "10", "--output", str(output)]) == [output]
        except Failure as failure:  # one epoch may teach the halves nothing in common
            pytest.fail(str(failure))
        printed = capsys.readouterr().out
        # Keras prints how long a step took.
        runs.append((output.read_bytes(), re.sub(r" \d+s - \S+/step", "", printed)))
    assert runs[0] == runs[1]
    np.testing.assert_allclose(imread(output).shape[:2], (800, 1400), atol=1)
    assert printed.count("Gaussian noise") == 7
    assert printed.splitlines()[-1] == f"wrote {output}"


def test_networks_of_the_paper_are_trained_and_measured(few_digits, capsys):
    for hidden in ([], ["100", "100"], ["200", "200"]):
        train_mnist.main(["--hidden", *hidden, "--epochs", "8", "--batch-size", "50"])
    capsys.readouterr()
    assert szegedy_table.main(["--count", "4"]) == []
    lines = capsys.readouterr().out.splitlines()[-3:]
    names = [line.split()[0].rstrip(",") for line in lines]
    assert names == ["FC10", "FC100-100-10", "FC200-200-10"]
    for line in lines:
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
