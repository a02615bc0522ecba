"""Adversarial training minimises the formula of Goodfellow et al. (2015), section 6."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.image import imread

from common import data, models, train_mnist, training
from method2_fgsm import adversarial_training, fgsm, pgd, rubbish
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


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_gradient_goes_through_both_terms_but_not_through_the_sign(tiny, alpha):
    """Against finite differences of the loss in which the adversarial images stay put."""
    model, x, y = tiny
    with tf.GradientTape() as tape:
        loss, _ = adversarial_loss(model, x, y, EPS, alpha)
    gradients = tape.gradient(loss, model.trainable_weights)
    weights = model.get_weights()
    x_adv = adversarial_by_hand(weights, x, y)
    step = 1e-6
    for number, gradient in enumerate(gradients):
        for place in np.ndindex(*gradient.shape):
            ahead, back = ([w.copy() for w in weights] for _ in range(2))
            ahead[number][place] += step
            back[number][place] -= step
            slope = (by_hand(ahead, x, y, x_adv, alpha) - by_hand(back, x, y, x_adv, alpha)) / (
                2 * step
            )
            np.testing.assert_allclose(gradient.numpy()[place], slope, atol=1e-8)


def test_each_step_uses_the_weights_of_that_moment(tiny):
    """Two steps of plain gradient descent, the second against the network after the first."""
    model, x, y = tiny
    weights = model.get_weights()
    trainer = AdversarialModel(model, EPS, 0.5)
    trainer.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=True)
    for _ in range(2):
        before = [w.copy() for w in weights]
        x_adv = adversarial_by_hand(before, x, y)
        for number, w in enumerate(weights):
            for place in np.ndindex(w.shape):
                ahead, back = ([v.copy() for v in before] for _ in range(2))
                ahead[number][place] += 1e-6
                back[number][place] -= 1e-6
                w[place] -= (
                    by_hand(ahead, x, y, x_adv, 0.5) - by_hand(back, x, y, x_adv, 0.5)
                ) / 2e-6
        trainer.train_step((x, y))
    for expected, found in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def fit(trainer, **settings):
    return training.fit(
        "mlp",
        train_mnist.cosine_adam(2e-3),
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
    from common import check_results, generate_5k
    from method2_fgsm import mnist_fast_gradient, visualize_mnist

    output = tmp_path / "r.npz"
    generate_5k.main(["--count", "50"])
    argv = ["--model", "mlp_adversarial", "--output", str(output)]
    mnist_fast_gradient.main(argv)
    check_results.main([str(output)])
    assert visualize_mnist.main([str(output), "--output", str(tmp_path / "v.png")])


@pytest.mark.parametrize("name", models.NAMES)
def test_projected_gradient_stays_in_its_box_and_beats_the_single_step(trained, digits, name):
    x, y = (part[:100] for part in digits)
    x_pgd = pgd.pgd(trained[name], x, y, EPS, steps=10)
    assert x_pgd.dtype == np.float32
    assert np.abs(x_pgd - x).max() <= EPS + 1e-6
    assert x_pgd.min() >= 0
    assert x_pgd.max() <= 1

    def error(images):
        return (models.classify(trained[name], images) != y).mean()

    assert error(x_pgd) >= error(fgsm.fgsm(trained[name], x, y, EPS))


def test_projected_gradient_on_softmax_regression_finds_the_worst_corner(trained, digits):
    """For two classes only, the logits are linear and the worst image in the box is known."""
    two = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(2)])
    weights = np.stack([trained["softmax"].get_weights()[0][:, digit] for digit in (0, 1)], axis=1)
    # A head start for class 0 that no attack can make up for: nobody leaves the batch early.
    two.set_weights([weights, np.array([1e4, 0])])
    x, y = digits[0][:20], np.zeros(20, np.int64)
    worst = np.clip(x + EPS * np.sign(weights[:, 1] - weights[:, 0]).reshape(28, 28), 0, 1)
    np.testing.assert_allclose(pgd.pgd(two, x, y, EPS, steps=20), worst, atol=1e-5)


def test_projected_gradient_does_not_depend_on_the_batch_and_repeats(trained, digits):
    x, y = (part[:30] for part in digits)
    one = pgd.pgd(trained["softmax"], x, y, EPS, steps=5, batch_size=7)
    np.testing.assert_array_equal(
        one, pgd.pgd(trained["softmax"], x, y, EPS, steps=5, batch_size=7)
    )
    whole = pgd.pgd(trained["softmax"], x, y, EPS, steps=5)
    assert (np.abs(one - whole) < 1e-5).mean() > 0.999
    np.testing.assert_array_equal(pgd.pgd(trained["softmax"], x, y, 0), x)


@pytest.mark.parametrize("settings", [{"eps": -1}, {"eps": 0.1, "steps": 0}, {"eps": np.nan}])
def test_wrong_settings_of_projected_gradient_are_named(trained, settings):
    with pytest.raises(ValueError, match=r"eps|steps"):
        pgd.pgd(trained["softmax"], np.zeros((1, 28, 28)), np.array([1]), **settings)


def test_rubbish_is_what_makes_a_model_sure():
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


def test_rubbish_prints_a_line_for_each_model(trained, capsys):
    assert rubbish.main(["--count", "50"]) == []
    printed = capsys.readouterr().out
    for name in models.NAMES:
        assert f"\n{models.title(name)} " in printed
