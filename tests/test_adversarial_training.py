"""Adversarial training minimises the formulas of Goodfellow et al. and of Madry et al."""

import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.image import imread

from common import check_results, data, generate_5k
from common.networks import mnist
from method2_fgsm import adversarial_training, fgsm, mnist_fast_gradient, visualize_mnist
from method2_fgsm.pgd import pgd
from method2_fgsm.robust import plain_and_adversarial, projected_training
from method2_fgsm.robust.adversarial_loss import (
    AdversarialModel,
    cells,
    projected_loss,
    sign_loss,
    uniform,
)

EPS = 0.1


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


def by_hand(weights, x, y, x_adv, alpha):
    """The loss with matrix products, for given adversarial images."""
    w1, b1, w2, b2 = weights

    def mean_loss(images):
        logits = np.tanh(np.reshape(images, (6, 16)) @ w1 + b1) @ w2 + b2
        return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), y])

    return alpha * mean_loss(x) + (1 - alpha) * mean_loss(x_adv)


def adversarial_by_hand(weights, x, y):
    """clip(x + eps * sign) with the gradient worked out by the chain rule."""
    w1, b1, w2, b2 = weights
    hidden = np.tanh(np.reshape(x, (6, 16)) @ w1 + b1)
    p = mnist.softmax(hidden @ w2 + b2) - np.eye(3)[y]
    gradient = (p @ w2.T * (1 - hidden**2)) @ w1.T
    return np.clip(x + EPS * np.sign(gradient).reshape(6, 4, 4), 0, 1)


def slopes(weights, x, y, alpha):
    """The derivative of the loss by each weight, with the adversarial images staying put."""
    x_adv = adversarial_by_hand(weights, x, y)
    step = 1e-6

    def slope(number, place):
        ahead, back = ([w.copy() for w in weights] for _ in range(2))
        ahead[number][place] += step
        back[number][place] -= step
        return (by_hand(ahead, x, y, x_adv, alpha) - by_hand(back, x, y, x_adv, alpha)) / (2 * step)

    return [
        np.reshape([slope(number, place) for place in np.ndindex(w.shape)], w.shape)
        for number, w in enumerate(weights)
    ]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_loss_is_the_formula_and_its_gradient_does_not_go_through_the_sign(tiny, alpha):
    model, x, y = tiny
    weights = model.get_weights()
    with tf.GradientTape() as tape:
        loss, logits = sign_loss(model, x, y, EPS, alpha)
    x_adv = adversarial_by_hand(weights, x, y)
    np.testing.assert_allclose(loss, by_hand(weights, x, y, x_adv, alpha), rtol=1e-9)
    np.testing.assert_allclose(logits, model(x), rtol=1e-9)
    gradients = tape.gradient(loss, model.trainable_weights)
    for gradient, slope in zip(gradients, slopes(weights, x, y, alpha), strict=True):
        np.testing.assert_allclose(gradient, slope, atol=1e-8)


def test_each_step_uses_the_weights_of_that_moment(tiny):
    """Two steps of plain gradient descent, the second against the network after the first."""
    model, x, y = tiny
    weights = model.get_weights()
    trainer = AdversarialModel(model, functools.partial(sign_loss, eps=EPS, alpha=0.5))
    trainer.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=True)
    for _ in range(2):
        weights = [w - slope for w, slope in zip(weights, slopes(weights, x, y, 0.5), strict=True)]
        trainer.train_step((x, y))
    for expected, found in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_on_two_classes_of_a_linear_model_the_projected_loss_is_that_of_the_worst_corner(tiny):
    """There the gradient's sign is the same everywhere, so any start ends in the known corner."""
    _, x, _ = tiny
    model = keras.Sequential(
        [
            keras.Input((4, 4), dtype="float64"),
            keras.layers.Flatten(dtype="float64"),
            keras.layers.Dense(2, dtype="float64"),
        ]
    )
    slope, bias = model.get_weights()[0], np.array([0.3, -0.2])
    model.set_weights([slope, bias])
    y = np.array([0, 1, 0, 1, 0, 1])
    away = np.sign(slope[:, 1 - y] - slope[:, y]).T.reshape(6, 4, 4)
    logits = np.clip(x + EPS * away, 0, 1).reshape(6, 16) @ slope + bias
    worst = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), y])
    loss, found = projected_loss(
        model, x, tf.constant(y), EPS, steps=3, step_size=0.07, start=uniform
    )
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


def test_the_epoch_that_withstands_most_is_kept_and_a_collapse_is_named(trained, digits, capsys):
    x, y = (part[:200] for part in digits)
    model = mnist.build("mlp")
    good = trained["mlp"].get_weights()
    watch = projected_training.BestEpoch(x, y, 0.02)
    watch.set_model(model)
    for epoch, factor in enumerate((0, 1, 0)):
        model.set_weights([factor * w for w in good])
        watch.on_epoch_end(epoch)
    model.set_weights([0 * w for w in good])
    watch.on_train_end()
    for kept, w in zip(model.get_weights(), good, strict=True):
        np.testing.assert_array_equal(kept, w)
    assert re.search("collapsed.*epoch 2 are kept", capsys.readouterr().out)

    steady = projected_training.BestEpoch(x, y, 0.02)
    steady.set_model(trained["mlp"])
    steady.on_epoch_end(0)
    steady.on_train_end()
    assert "collapsed" not in capsys.readouterr().out


def test_the_learning_rate_rises_in_a_straight_line_and_falls_back_to_zero():
    rate = projected_training.RiseAndFall(0.5, 100)
    at = [float(rate(step)) for step in (0, 20, 40, 70, 100)]
    np.testing.assert_allclose(at, [0, 0.25, 0.5, 0.25, 0], atol=1e-6)


@pytest.fixture(scope="module")
def hardened(trained, tmp_path_factory):
    """A function: the MLP trained by the script, and what the script wrote."""
    real, count = data.load, {"train": 6000, "test": 500}
    arguments = ["--model", "mlp", "--eps", "0.1", "--epochs"]
    arguments += ["3", "--output", str(tmp_path_factory.mktemp("figure") / "f.png")]

    @functools.cache
    def train(*settings):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                data, "load", lambda split: [part[: count[split]] for part in real(split)]
            )
            patch.setattr(plain_and_adversarial, "PGD_STEPS", 3)
            written = adversarial_training.main([*arguments, *settings])
        return written, mnist.load(written[0].name.removesuffix(".weights.h5"))

    return train


@pytest.mark.parametrize(
    ("settings", "name", "attack"),
    [
        ((), "mlp_adversarial", fgsm.fgsm),
        (("--attack", "pgd", "--steps", "2", "--epochs", "4"), "mlp_robust", pgd),
    ],
)
def test_the_trained_network_withstands_what_it_was_trained_against(
    trained, hardened, digits, settings, name, attack
):
    written, model = hardened(*settings)
    assert [path.name for path in written] == [
        f"{name}.weights.h5", f"{name}_predictions.csv", f"confusion_{name}.png", "f.png"
    ]  # fmt: skip
    np.testing.assert_allclose(imread(written[-1]).shape[:2], (990, 1100), atol=1)
    x, y = (part[:500] for part in digits)
    before, after = (
        (mnist.classify(network, attack(network, x, y, EPS)) == y).mean()
        for network in (trained["mlp"], model)
    )
    assert after > before + 0.3


def test_the_first_layer_is_shown_unit_by_unit():
    for name, shape in (("softmax", (10, 28, 28)), ("mlp", (32, 28, 28)), ("cnn", (32, 5, 5))):
        model = mnist.build(name)
        images, kernel = plain_and_adversarial.first_layer(model), model.get_weights()[0]
        unit = kernel[:, 7].reshape(28, 28) if kernel.ndim == 2 else kernel[:, :, 0, 7]
        assert images.shape == shape
        np.testing.assert_array_equal(images[7], unit)


def test_other_scripts_know_the_trained_network(hardened, tmp_path):
    hardened()
    output = tmp_path / "r.npz"
    generate_5k.main(["--count", "50"])
    argv = ["--model", "mlp_adversarial", "--output", str(output)]
    mnist_fast_gradient.main(argv)
    check_results.main([str(output)])
    assert visualize_mnist.main([str(output), "--output", str(tmp_path / "v.png")])
