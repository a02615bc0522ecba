"""The scripts of method 1: what they save, print and draw, and how far noise transfers."""

import re
from unittest import mock

import keras
import numpy as np
import pytest

from common import check_results, data, files, generate_5k, results
from common.command import Failure
from common.networks import mnist, training
from method1_noise_optimization import (
    attack,
    attack_mnist,
    compare_methods,
    szegedy_table,
    transfer,
    visualize_adv_examples,
)
from method1_noise_optimization.attack import sizes, summary
from method2_fgsm import fgsm


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


@pytest.mark.slow
def test_the_ways_that_need_no_target_are_drawn_and_counted(capsys, monkeypatch):
    monkeypatch.setitem(compare_methods.WAYS["smallest ε, 500 steps"], "steps", 40)
    options = ["--limit", "10", "--model", "softmax", "--target", "any"]
    assert compare_methods.main(options) == [files.IMG / "noise_methods_softmax_any.png"]
    out = capsys.readouterr().out
    assert [way for way in compare_methods.WAYS if way in out] == list(compare_methods.WAYS)[-3:]


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
            assert table[number, other] == (mnist.classify(shown, x_adv) == y).mean()
        assert sizes[number] == pytest.approx(attack.distortions(x_adv - x).mean())
    np.testing.assert_allclose(np.diag(agreement), 1)
    assert ((agreement >= 0) & (agreement <= 1)).all()


def test_minimal_noise_fools_its_own_network_and_gaussian_noise_does_far_less(shallow):
    tables = transfer.noise_tables(*shallow, 0.1, 0)
    found, _, _ = tables["as found"]
    np.testing.assert_array_equal(np.diag(found), 0)
    amplified, sizes, unclipped = tables["amplified"]
    np.testing.assert_allclose(sizes, 0.1, rtol=1e-3)
    assert 1 - amplified[:2].max() > 2 * (1 - amplified[2].min())
    # Of the same size, but without the bias that clipping gives it.
    assert (unclipped >= amplified[2]).all()
    off = ~np.eye(2, dtype=bool)
    assert (amplified[:2][off] <= found[:2][off]).all()


def test_the_halves_are_disjoint_and_whole():
    with mock.patch.object(training, "fit", autospec=True) as fit:
        transfer.train_halves(0)
    first, same, second = (call.kwargs["rows"] for call in fit.call_args_list)
    np.testing.assert_array_equal(first, same)
    assert sorted([*first, *second]) == list(range(60000))


@pytest.mark.slow
def test_transfer_draws_and_reports_the_same_again(trained, monkeypatch, tmp_path, capsys):
    halves = [trained["mlp"], trained["softmax"], trained["mlp"]]
    monkeypatch.setattr(transfer, "train_halves", lambda seed: halves)
    options = ["--models", "softmax", "mlp", "--count", "6", "--output", str(tmp_path / "t.png")]
    runs = []
    for _ in range(2):
        (figure,) = transfer.main(options)
        runs.append((figure.read_bytes(), capsys.readouterr().out))
    assert runs[0] == runs[1]
    assert runs[0][0].startswith(b"\x89PNG")
    assert runs[0][1].count("Gaussian noise") == 7


def test_on_networks_of_the_paper_the_nearest_digit_is_nearest(trained, monkeypatch, capsys):
    monkeypatch.setattr(szegedy_table, "PUBLISHED", {"fc10": (0.926, 0.062)})
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
