"""Adversarial training minimises the formula of Goodfellow et al. (2015), section 6."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.image import imread

from common import check_results, data, generate_5k, models, training
from method2_fgsm import adversarial_training, fgsm, mnist_fast_gradient, visualize_mnist
from method2_fgsm.adversarial_loss import AdversarialModel, adversarial_loss

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
    p = models.softmax(hidden @ w2 + b2) - np.eye(3)[y]
    gradient = (p @ w2.T * (1 - hidden**2)) @ w1.T
    return np.clip(x + EPS * np.sign(gradient).reshape(6, 4, 4), 0, 1)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_the_loss_is_the_formula(tiny, alpha):
    model, x, y = tiny
    weights = model.get_weights()
    loss, logits = adversarial_loss(model, x, y, EPS, alpha)
    x_adv = adversarial_by_hand(weights, x, y)
    np.testing.assert_allclose(loss, by_hand(weights, x, y, x_adv, alpha), rtol=1e-9)
    np.testing.assert_allclose(logits, model(x), rtol=1e-9)


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
def test_the_gradient_goes_through_both_terms_but_not_through_the_sign(tiny, alpha):
    model, x, y = tiny
    with tf.GradientTape() as tape:
        loss, _ = adversarial_loss(model, x, y, EPS, alpha)
    gradients = tape.gradient(loss, model.trainable_weights)
    for gradient, slope in zip(gradients, slopes(model.get_weights(), x, y, alpha), strict=True):
        np.testing.assert_allclose(gradient, slope, atol=1e-8)


def test_each_step_uses_the_weights_of_that_moment(tiny):
    """Two steps of plain gradient descent, the second against the network after the first."""
    model, x, y = tiny
    weights = model.get_weights()
    trainer = AdversarialModel(model, EPS, 0.5)
    trainer.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=True)
    for _ in range(2):
        weights = [w - slope for w, slope in zip(weights, slopes(weights, x, y, 0.5), strict=True)]
        trainer.train_step((x, y))
    for expected, found in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def fit(trainer, **settings):
    return training.fit(
        "mlp",
        training.cosine_adam(2e-3),
        epochs=1,
        batch_size=100,
        seed=5,
        rows=slice(2000),
        trainer=trainer,
        **settings,
    )


def test_alpha_one_is_plain_training_with_the_same_seed():
    plain = fit(None).get_weights()
    same = fit(lambda model: AdversarialModel(model, 0.25, 1.0)).get_weights()
    other = fit(lambda model: AdversarialModel(model, 0.25, 0.5)).get_weights()
    for w, same_w, other_w in zip(plain, same, other, strict=True):
        np.testing.assert_allclose(same_w, w, atol=2e-4)
        assert np.abs(other_w - w).max() > 1e-3


@pytest.fixture(scope="module")
def hardened(trained, tmp_path_factory):
    """The MLP adversarially trained by the script, and what the script wrote."""
    real = data.load
    figure = tmp_path_factory.mktemp("figure") / "a.png"
    with pytest.MonkeyPatch.context() as patch:
        count = {"train": 6000, "test": 500}
        patch.setattr(data, "load", lambda split: [part[: count[split]] for part in real(split)])
        settings = ["--model", "mlp", "--eps", "0.1", "--epochs", "3", "--output", str(figure)]
        written = adversarial_training.main(settings)
    return written, models.load("mlp_adversarial")


def test_the_trained_network_withstands_what_it_was_trained_against(trained, hardened, digits):
    x, y = (part[:1000] for part in digits)
    _, model = hardened

    def error(attacked):
        x_adv = fgsm.fgsm(attacked, x, y, EPS)
        return (models.classify(attacked, x_adv) != y).mean()

    assert error(model) < 0.5 * error(trained["mlp"])


def test_what_is_written(hardened, trained):
    written, _ = hardened
    assert [path.name for path in written] == [
        "mlp_adversarial.weights.h5",
        "mlp_adversarial_predictions.csv",
        "confusion_mlp_adversarial.png",
        "a.png",
    ]
    np.testing.assert_allclose(imread(written[-1]).shape[:2], (990, 1100), atol=1)


@pytest.mark.parametrize(
    ("name", "shape"), [("softmax", (10, 28, 28)), ("mlp", (32, 28, 28)), ("cnn", (32, 5, 5))]
)
def test_the_first_layer_is_shown_unit_by_unit(trained, digits, name, shape):
    images = adversarial_training.first_layer(trained[name])
    assert images.shape == shape
    kernel = trained[name].get_weights()[0]
    unit = kernel[:, 7].reshape(28, 28) if kernel.ndim == 2 else kernel[:, :, 0, 7]
    np.testing.assert_array_equal(images[7], unit)


def test_other_scripts_know_the_trained_network(hardened, tmp_path):
    output = tmp_path / "r.npz"
    generate_5k.main(["--count", "50"])
    argv = ["--model", "mlp_adversarial", "--output", str(output)]
    mnist_fast_gradient.main(argv)
    check_results.main([str(output)])
    assert visualize_mnist.main([str(output), "--output", str(tmp_path / "v.png")])
