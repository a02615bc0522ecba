"""Adversarial training minimises the formulas of Goodfellow et al. and of Madry et al.; what is
trained on bounds is proven to some part, and no attack breaks what is proven."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import data
from common.command import Failure
from common.networks import mnist, own_model
from method2_fgsm import adversarial_training, certified, fgsm
from method2_fgsm.pgd import pgd
from method2_fgsm.robust import (
    bounds,
    certified_training,
    ensemble,
    plain_and_adversarial,
    projected_training,
)
from method2_fgsm.robust.adversarial_loss import (
    AdversarialModel,
    cells,
    projected_loss,
    sign_loss,
    uniform,
)

EPS = 0.1
PROVEN = 0.03  # what the certified network is trained for


@pytest.fixture
def tiny():
    """A small network in float64, and six images with their labels."""
    keras.utils.set_random_seed(3)
    image = keras.Input((4, 4), dtype="float64")
    layers = [
        keras.layers.Flatten(dtype="float64"),
        keras.layers.Dense(7, activation="tanh", dtype="float64"),
        keras.layers.Dense(3, dtype="float64"),
    ]
    x = np.random.default_rng(4).random((6, 4, 4))
    return keras.Sequential([image, *layers]), tf.constant(x), tf.constant([0, 1, 2, 0, 1, 2])


def by_hand(weights, x, y):
    """clip(x + eps * sign) with the gradient by the chain rule; and J(·, y) by matrix products."""
    w1, b1, w2, b2 = weights

    def mean_loss(images, w1=w1, b1=b1, w2=w2, b2=b2):
        logits = np.tanh(np.reshape(images, (6, 16)) @ w1 + b1) @ w2 + b2
        return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), y])

    hidden = np.tanh(np.reshape(x, (6, 16)) @ w1 + b1)
    p = mnist.softmax(hidden @ w2 + b2) - np.eye(3)[y]
    gradient = (p @ w2.T * (1 - hidden**2)) @ w1.T
    return np.clip(x + EPS * np.sign(gradient).reshape(6, 4, 4), 0, 1), mean_loss


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_the_loss_is_the_formula_and_its_gradient_does_not_go_through_the_sign(tiny, alpha):
    model, x, y = tiny
    weights = model.get_weights()
    with tf.GradientTape() as tape:
        loss, logits = sign_loss(model, x, y, EPS, alpha)
    x_adv, mean_loss = by_hand(weights, x, y)

    def formula(weights):
        return alpha * mean_loss(x, *weights) + (1 - alpha) * mean_loss(x_adv, *weights)

    np.testing.assert_allclose(loss, formula(weights), rtol=1e-9)
    np.testing.assert_allclose(logits, model(x), rtol=1e-9)
    # The derivative in some direction of the weights, with the adversarial images staying put.
    gradients, rng = tape.gradient(loss, model.trainable_weights), np.random.default_rng(1)
    for _ in range(5):
        way = [rng.normal(size=w.shape) for w in weights]
        ahead, back = (
            formula([w + step * d for w, d in zip(weights, way, strict=True)])
            for step in (1e-6, -1e-6)
        )
        slope = sum(np.sum(g * d) for g, d in zip(gradients, way, strict=True))
        np.testing.assert_allclose(slope, (ahead - back) / 2e-6, rtol=1e-6, atol=1e-8)


def test_each_step_uses_the_weights_of_that_moment(tiny):
    """Two steps of plain gradient descent, the second against the network after the first."""
    model, x, y = tiny
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    loss = functools.partial(sign_loss, eps=EPS, alpha=0.5)
    trainer = AdversarialModel(model, loss)
    trainer.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=True)
    for _ in range(2):
        trainer.train_step((x, y))
        with tf.GradientTape() as tape:
            found, _ = loss(twin, x, y)
        for weight, slope in zip(
            twin.weights, tape.gradient(found, twin.trainable_weights), strict=True
        ):
            weight.assign(weight - slope)
    for expected, found in zip(twin.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_on_two_classes_of_a_linear_model_the_projected_loss_is_that_of_the_worst_corner(tiny):
    """There the gradient's sign is the same everywhere, so any start ends in the known corner."""
    _, x, _ = tiny
    layers = keras.layers.Flatten(dtype="float64"), keras.layers.Dense(2, dtype="float64")
    model = keras.Sequential([keras.Input((4, 4), dtype="float64"), *layers])
    slope, bias = model.get_weights()[0], np.array([0.3, -0.2])
    model.set_weights([slope, bias])
    y = np.array([0, 1, 0, 1, 0, 1])
    away = np.sign(slope[:, 1 - y] - slope[:, y]).T.reshape(6, 4, 4)
    logits = np.clip(x + EPS * away, 0, 1).reshape(6, 16) @ slope + bias
    worst = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), y])
    loss, found = projected_loss(model, x, tf.constant(y), EPS, 3, 0.07, start=uniform)
    np.testing.assert_allclose(found, logits)
    np.testing.assert_allclose(loss, worst)


def test_a_start_is_uniform_or_a_corner_in_square_cells():
    tf.random.set_seed(0)
    noise = cells(tf.zeros((300, 10, 9)), 0.25).numpy()
    assert np.abs(noise).max() <= 0.25
    corner = (np.abs(noise) == 0.25).all(axis=(1, 2))
    assert 0.7 < corner.mean() < 0.9  # four of five kinds
    # Of four kinds of corners; cells of four pixels are cells of two as well.
    for side, share in ((2, 1 / 2), (4, 1 / 4), (7, 1 / 4)):
        cell = np.ones((1, side, side))
        grown = np.kron(noise[corner][:, ::side, ::side], cell)[:, :10, :9]
        assert abs((grown == noise[corner]).all(axis=(1, 2)).mean() - share) < 0.1


@pytest.mark.parametrize(("start", "eps"), [(uniform, 0.05), (cells, 0.3)])
def test_training_never_sees_an_image_outside_the_box(start, eps):
    """However large the steps are; a model that notes what it is shown."""
    shown = []

    def model(images, training):
        shown.append(images)
        return tf.reshape(images, (5, 16)) @ slope

    random = np.random.default_rng(1)
    slope, x = random.normal(size=(16, 3)), random.random((5, 4, 4))
    y = tf.constant([0, 1, 2, 0, 1])
    projected_loss(model, tf.constant(x), y, eps, 2, step_size=0.5, start=start)
    assert len(shown) == 3
    for images in shown:
        assert np.abs(images - x).max() <= eps + 1e-9
        assert np.min(images) >= 0
        assert np.max(images) <= 1
    assert np.abs(shown[0] - x).max() > 0.5 * eps  # it starts somewhere else


@pytest.mark.parametrize(("shares", "kept"), [((0.1, 0.9, 0.2), 2), ((0.2, 0.5, 0.5), 3)])
def test_the_best_epoch_is_kept_and_a_collapse_is_named(tiny, capsys, shares, kept):
    model, share = tiny[0], iter(shares)
    weights = model.get_weights()
    watch = projected_training.BestEpoch(model, lambda: (next(share), "words"))
    for epoch in range(3):
        model.set_weights([(epoch + 1) * w for w in weights])
        watch.on_epoch_end(epoch)
    watch.on_train_end()
    for w, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(w, kept * before)
    printed = capsys.readouterr().out
    assert f"the weights of epoch {kept} are kept" in printed
    assert ("collapsed after epoch 2, to 20.0%" in printed) == (kept == 2)


def test_the_learning_rate_rises_in_a_straight_line_and_falls_back_to_zero():
    rate = projected_training.RiseAndFall(0.5, 100)
    at = [float(rate(step)) for step in (0, 20, 40, 70, 100)]
    np.testing.assert_allclose(at, [0, 0.25, 0.5, 0.25, 0], atol=1e-6)


@pytest.mark.slow
def test_the_trained_network_withstands_steps_and_every_script_knows_it(
    trained, monkeypatch, tmp_path, digits
):
    real, count = data.load, {"train": 5000, "test": 200}
    monkeypatch.setattr(data, "load", lambda split: [p[: count[split]] for p in real(split)])
    monkeypatch.setattr(plain_and_adversarial, "PGD_STEPS", 2)
    monkeypatch.setattr(plain_and_adversarial, "CURVE", np.array([0]))
    arguments = "--model mlp --eps 0.1 --epochs 2 --attack pgd --steps 2 --output"
    written = adversarial_training.main([*arguments.split(), str(tmp_path / "f.png")])
    name = "mlp_robust_steps2_epochs2"
    kinds = f"{name}.weights.h5", f"{name}_predictions.csv", f"confusion_{name}.png"
    assert [path.name for path in written] == [*kinds, "f.png"]
    assert mnist.train_command(name).endswith("--model mlp --attack pgd --steps 2 --epochs 2")
    model = own_model.load(own_model.open_network(name))[0]
    x, y = (part[:200] for part in digits)
    before, after = (
        (mnist.classify(network, fgsm.fgsm(network, x, y, EPS)) == y).mean()
        for network in (trained["mlp"], model)
    )
    assert after > before + 0.3


# Trained on bounds --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certified_mlp(own_folders):
    """The MLP after four short epochs on bounds, as the script trains and saves it."""
    real, count = data.load, {"train": 13000, "test": 300}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda split: [part[: count[split]] for part in real(split)])
        settings = f"--attack bounds --model mlp --eps {PROVEN} --epochs 4 --learning-rate 0.005"
        adversarial_training.main(settings.split())
    name = f"mlp_certified_eps{PROVEN}_epochs4_learning-rate0.005"
    assert mnist.trained_eps(name) == PROVEN
    return mnist.load(name)


@pytest.mark.slow
def test_much_is_proven_of_what_was_trained_on_bounds_and_nothing_breaks_it(
    certified_mlp, trained, monkeypatch
):
    x, y = (part[:300] for part in data.load("test"))
    share, plain = (bounds.proven(m, x, y, PROVEN).mean() for m in (certified_mlp, trained["mlp"]))
    assert share > 0.6
    assert plain < 0.1
    rows = np.flatnonzero(bounds.proven(certified_mlp, x, y, PROVEN))[:60]
    x, y = x[rows], y[rows]
    for name in ("STEPS", "SMALLEST_STEPS", "QUERIES"):
        monkeypatch.setattr(ensemble, name, 20)
    for kind in ensemble.attacks(trained["softmax"]):
        for attack in kind.values():
            assert ensemble.withstood(certified_mlp, x, y, PROVEN, attack).all()
    x_adv = pgd(certified_mlp, x, y, PROVEN, steps=200, step_size=PROVEN / 50, loss="margin")
    np.testing.assert_array_equal(mnist.classify(certified_mlp, x_adv), y)
    # Farther out they do break it: the test sees what attacks do.
    assert (mnist.classify(certified_mlp, fgsm.fgsm(certified_mlp, x, y, 0.2)) != y).any()


def test_the_plain_network_is_the_normalised_one():
    """Folding changes nothing: statistics, scale and offset far from 1 and 0 included."""
    rng = np.random.default_rng(0)
    for name in ("mlp_certified", "strided_certified"):
        model = mnist.build(name)
        trained = certified_training.normalised(model)
        trained.set_weights([w + rng.uniform(0, 0.05, w.shape) for w in trained.get_weights()])
        certified_training.fold(trained, model)
        x = rng.random((5, 28, 28), np.float32)
        np.testing.assert_allclose(
            mnist.predict(model, x), mnist.predict(trained, x), rtol=1e-4, atol=1e-4
        )


def test_the_loss_bounds_the_loss_of_every_image_in_the_box():
    trained = certified_training.normalised(mnist.build("mlp_certified"))
    x, y = (part[:100] for part in data.load("test"))
    losses = [
        float(certified_training.bounds_loss(trained, x, y, eps, 0.0, 1e-5)[0])
        for eps in (0.0, 0.01, 0.1)
    ]
    assert losses == sorted(losses)
    size = sum(np.abs(w).sum() for w in trained.get_weights() if w.ndim > 1)
    z = trained(x, training=True)
    entropy = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, z))
    # Without a box, the bounds are the logits less that of y, but for what float32 may round.
    assert 0 <= losses[0] - (entropy + 1e-5 * size) < 0.1


def test_an_attack_that_breaks_a_proof_ends_the_script():
    largest, steps = np.array([0.12, np.nan]), np.arange(len(certified.EPS))[:, np.newaxis]
    never = np.full(2, np.inf)
    _, left = certified.both_edges(largest, never, steps < [3, 0])
    assert left[:4].tolist() == [50, 50, 50, 0]
    with pytest.raises(Failure, match=r"image 0: an attack succeeds at eps 0\.1, though 0\.12"):
        certified.both_edges(largest, never, steps < [2, 0])
    with pytest.raises(Failure, match=r"image 0: an attack succeeds at eps 0\.11, though 0\.12"):
        certified.both_edges(largest, np.array([0.11, 0]), steps < [3, 0])


@pytest.mark.slow
def test_both_edges_are_drawn_and_saved(certified_mlp, trained, monkeypatch, tmp_path):
    networks = dict.fromkeys(("softmax", "strided_certified"), PROVEN)
    monkeypatch.setattr(certified, "NETWORKS", networks)
    monkeypatch.setattr(certified, "PROVEN_EPS", tmp_path / "proven.npz")
    monkeypatch.setattr(certified, "EPS", np.array([0, 0.03, 0.2]))
    models = trained | {"strided_certified": certified_mlp}
    monkeypatch.setattr(mnist, "load", lambda name: models[name])
    for name in ("STEPS", "SMALLEST_STEPS", "QUERIES", "STARTS"):
        monkeypatch.setattr(ensemble, name, 2)
    x, y = (part[:100] for part in data.load("test"))
    monkeypatch.setattr(data, "load", lambda split: (x, y))
    figure = tmp_path / "c.png"
    written = certified.main(["--count", "10", "--output", str(figure)])
    assert written == [tmp_path / "proven.npz", figure]
    saved = np.load(written[0], allow_pickle=False)
    for name in networks:
        share = bounds.proven(mnist.load(name), x, y, PROVEN).mean()
        assert abs((saved[name] >= PROVEN).mean() - share) < 0.02
