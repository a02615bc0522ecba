"""Whatever Keras model a user brings, an attack works on it or says in one line why it cannot.

The small models here see images (4, 3, 1); the attacks are all that the collection offers.
"""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import files
from common.networks import mnist
from common.search import checks
from method1_noise_optimization import attack
from method2_fgsm import fgsm, pgd
from method2_fgsm.smallest_eps import smallest_eps

layers, ops = keras.layers, keras.ops
SHAPE = (4, 3, 1)
# Each attack's images, for a model, images, labels to leave and labels to reach.
ATTACKS = {
    "gradient_signs": lambda model, x, y, target: fgsm.gradient_signs(model, x, y),
    "fgsm": lambda model, x, y, target: fgsm.fgsm(model, x, y, 0.1),
    "smallest_eps": lambda model, x, y, target: smallest_eps(model, x, target)[1],
    "pgd": lambda model, x, y, target: pgd.pgd(model, x, y, 0.1, steps=3),
    **{
        method: lambda model, x, y, target, method=method: (
            x + attack.find_noise(model, x, target, method=method, learning_rate=0.5)
        )
        for method in attack.METHODS
    },
}


def attack_all(model, message):
    """Each attack on a model's images has to end in a ValueError with `message`."""
    x, y = np.random.default_rng(0).random((6, *SHAPE), np.float32), np.arange(6) % 2
    for name, find in ATTACKS.items():
        with pytest.raises(ValueError, match=message):
            pytest.fail(f"{name} gives {find(model, x, y, 1 - y)}")


@pytest.fixture(autouse=True)
def same_weights():
    keras.utils.set_random_seed(3)


def functional(*stack, shape=SHAPE):
    return keras.Sequential([keras.Input(shape), *stack])


def linear(classes=3, **settings):
    return functional(layers.Flatten(), layers.Dense(classes, **settings))


class Subclassed(keras.Model):
    """A model that declares neither its input nor its output."""

    def __init__(self, last=None):
        super().__init__()
        self.flat, self.hidden = layers.Flatten(), layers.Dense(5, activation="tanh")
        self.out = layers.Dense(3)
        self.last = last or (lambda z: z)

    def call(self, x):
        return self.last(self.out(self.hidden(self.flat(x))))


def called(model):
    model(np.zeros((1, *SHAPE), np.float32))
    return model


TAKEN = {
    "a Sequential without an input that was called": lambda: called(
        keras.Sequential([layers.Flatten(), layers.Dense(3)])
    ),
    "images of any size": lambda: functional(
        layers.Conv2D(4, 2), layers.GlobalAveragePooling2D(), layers.Dense(3), shape=(None, None, 1)
    ),
    "float64": lambda: linear(dtype="float64"),
    "mixed_float16 with logits in float32": lambda: functional(
        layers.Flatten(), layers.Dense(4, dtype="mixed_float16"), layers.Dense(3, dtype="float32")
    ),
    "two logits, 0 and z": lambda: functional(
        layers.Flatten(), layers.Dense(1), layers.Lambda(lambda z: ops.pad(z, [[0, 0], [1, 0]]))
    ),
    "the logarithms of probabilities": lambda: linear(activation="log_softmax"),
}


def test_every_attack_takes_a_model_that_declares_nothing():
    model = called(Subclassed())
    x, y = np.random.default_rng(0).random((6, *SHAPE), np.float32), np.arange(6) % 2
    for find in ATTACKS.values():
        x_adv = find(model, x, y, 1 - y)
        assert x_adv.dtype == np.float32
        assert np.isfinite(x_adv).all()
        assert not np.array_equal(x_adv, x)


@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN)
def test_the_sign_step_brings_the_target_nearer_on(make):
    model = make()
    x = np.random.default_rng(0).random((8, *SHAPE), np.float32)
    y_target = (mnist.classify(model, x) + 1) % mnist.predict(model, x).shape[1]
    x_adv = fgsm.fgsm(model, x, y_target, 0.05, targeted=True)
    before, after = (mnist.softmax(mnist.predict(model, images)) for images in (x, x_adv))
    rows = np.arange(8)
    assert (after[rows, y_target] > before[rows, y_target]).all()


def two_heads():
    image = keras.Input(SHAPE)
    flat = layers.Flatten()(image)
    return keras.Model(image, [layers.Dense(3)(flat), layers.Dense(2)(flat)])


def two_inputs():
    images = keras.Input(SHAPE), keras.Input(SHAPE)
    return keras.Model(images, layers.Dense(3)(layers.Flatten()(images[0] + images[1])))


def applied(function):
    image = keras.Input(SHAPE)
    return keras.Model(image, function(linear()(image)))


def with_last(function):
    return functional(layers.Flatten(), layers.Dense(3), layers.Lambda(function))


PROBABILITIES = {
    "Dense with softmax": lambda: linear(activation="softmax"),
    "a Softmax layer": lambda: functional(linear(), layers.Softmax()),
    "a model within a model": lambda: functional(layers.Reshape((12,)), keras.Sequential(
        [keras.Input((12,)), layers.Dense(5, activation="relu"), layers.Dense(3, "softmax")]
    )),
    "the guide to mixed precision": lambda: guide("mixed_float16"),
    "the same in bfloat16": lambda: guide("mixed_bfloat16", layers.Dense(3)),
}  # fmt: skip
WITHOUT_LAYERS = {
    "a subclassed model": lambda: called(Subclassed(ops.softmax)),
    "an operation": lambda: applied(ops.softmax),
    "a softmax, then dropout": lambda: functional(
        linear(activation="softmax"), layers.Dropout(0.5)
    ),
}


def guide(precision, *last):
    """A network as the guide to mixed precision builds it."""
    hidden, half = layers.Dense(5, "tanh", dtype=precision), layers.Dense(3, dtype=precision)
    softmax = layers.Activation("softmax", dtype="float32")
    return functional(layers.Flatten(), hidden, half, *last, softmax)


def ensemble(join):
    image = keras.Input(SHAPE)
    return keras.Model(image, join([linear(activation="softmax")(image) for _ in range(2)]))


class StaysOn(layers.Dropout):
    """A layer that is in training all the time."""

    def call(self, x):
        return super().call(x, training=True)


def whole_numbers():
    image = keras.Input(SHAPE, dtype="uint8")
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(image)))


REFUSED = {
    **{what: (make, r"logits_of\(model\)") for what, make in PROBABILITIES.items()},
    **{
        what: (make, "gives probabilities.*(show its last layer|make it without)")
        for what, make in WITHOUT_LAYERS.items()
    },
    "sigmoids": (lambda: linear(activation="sigmoid"), r"logits_of\(model\)"),
    "the mean of two softmaxes": (lambda: ensemble(layers.Average()), "logsumexp"),
    "dropout that stays on": (
        lambda: functional(linear(), StaysOn(0.5)),
        "differently each time",
    ),
    "one sigmoid output": (lambda: linear(1, activation="sigmoid"), "0 and z"),
    "two outputs": (two_heads, "one output"),
    "two inputs": (two_inputs, "2 inputs"),
    "a subclassed model that was not called": (Subclassed, "call it on one image first"),
    "a map of logits": (lambda: functional(layers.Dense(3)), "not one row of logits"),
    "images of another size": (lambda: called(Subclassed()), r"does not take images \(5, 3, 1\)"),
    "mixed_float16": (lambda: linear(dtype="mixed_float16"), "float16"),
    "no gradient": (lambda: with_last(ops.stop_gradient), "cannot be differentiated"),
    "steps without a slope": (
        lambda: functional(layers.Lambda(lambda x: ops.sign(x - 0.5)), linear()),
        "cannot be differentiated",
    ),
    "images in whole numbers": (whole_numbers, r"build it on keras.Input\(shape\)"),
    "a name": (lambda: "mlp", "'mlp' is not a Keras model"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_a_model_that_cannot_be_attacked_is_refused(make, message):
    shape = (5, 3, 1) if "5, 3, 1" in message else SHAPE
    with pytest.raises(ValueError, match=message):
        checks.checked(make(), np.full((2, *shape), 0.5), np.zeros(2, int))


class Watched(Subclassed):
    """Notes whether each of its calls is traced, to be compiled."""

    def call(self, x):
        self.eager.append(tf.executing_eagerly())
        return super().call(x)


def test_what_a_model_is_tried_for_is_compiled():
    """Eagerly the gradients by all its weights would be computed too, and some of them crash."""
    model = Watched()
    model.eager = []
    called(model).eager.clear()
    checks.checked(model, np.full((2, *SHAPE), 0.5), np.zeros(2, int))
    assert model.eager
    assert not any(model.eager)


def test_every_attack_refuses_it():
    attack_all(linear(activation="softmax"), r"logits_of\(model\)")


def test_every_attack_counts_the_images_whose_logits_or_gradient_are_not_finite():
    """sqrt has no slope at 0: two images of six are black."""
    for bias in (np.nan, np.inf):
        model = linear()
        model.set_weights([np.ones((12, 3)), np.array([0, bias, 0])])
        attack_all(model, "not finite numbers for 6 of 6 images")
    model = functional(layers.Flatten(), layers.Lambda(ops.sqrt), layers.Dense(2))
    x = np.random.default_rng(0).uniform(0.2, 0.8, (6, *SHAPE)).astype(np.float32)
    x[[1, 4]] = 0
    y = mnist.classify(model, x)
    for name, find in ATTACKS.items():
        if name != "pgd":  # it starts from a random point, where there is a slope
            with pytest.raises(ValueError, match="not finite numbers for 2 of 6 images"):
                pytest.fail(f"{name} gives {find(model, x, y, 1 - y)}")


def test_logits_that_happen_to_lie_between_0_and_1_are_logits():
    """A classifier that always says 0 by a logit of one, and all others zero."""
    model = linear()
    model.set_weights([np.zeros((12, 3)), np.array([1, 0, 0])])
    x, y = np.random.default_rng(0).random((4, *SHAPE), np.float32), np.zeros(4, int)
    np.testing.assert_array_equal(fgsm.fgsm(model, x, y, 0.1), x)


@pytest.mark.parametrize("make", PROBABILITIES.values(), ids=PROBABILITIES)
def test_logits_of_is_the_model_without_its_softmax(make):
    model = make()
    logits = mnist.logits_of(model)
    assert logits.outputs[0].dtype in ("float32", "float64")
    x = np.random.default_rng(0).random((7, *SHAPE), np.float32)
    close = {"rtol": 0.03 if "float16" in str(model.get_config()) else 1e-5}
    checks.checked(logits, x, np.zeros(7, int))
    for _ in range(2):
        p = mnist.softmax(mnist.predict(logits, x))
        np.testing.assert_allclose(p, mnist.predict(model, x), **close)
        # The weights are the model's own, and it keeps its softmax.
        model.set_weights([2 * w for w in model.get_weights()])


def test_logits_of_is_the_model_without_its_sigmoids():
    model = functional(linear(), layers.Activation("sigmoid"))
    x = np.random.default_rng(0).random((7, *SHAPE), np.float32)
    logits = mnist.predict(mnist.logits_of(model), x)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), mnist.predict(model, x), rtol=1e-5)


@pytest.mark.parametrize("make", [*WITHOUT_LAYERS.values(), two_heads])
def test_logits_of_says_where_it_cannot(make):
    with pytest.raises(ValueError, match=r"does not (end in a softmax|show its last layer)"):
        mnist.logits_of(make())


def test_a_model_that_ends_in_logits_is_its_own():
    for model in (linear(), functional(linear())):
        assert mnist.logits_of(model) is model


def test_what_logits_of_makes_can_be_saved_and_cloned(tmp_path):
    x = np.random.default_rng(0).random((7, *SHAPE), np.float32)
    for make in (guide, lambda _: PROBABILITIES["a model within a model"]()):
        logits = mnist.logits_of(make("mixed_float16"))
        expected = mnist.predict(logits, x)
        logits.save(tmp_path / "logits.keras")
        cloned = keras.models.clone_model(logits)
        cloned.set_weights(logits.get_weights())
        # By nothing but Keras, and by a network that was not attacked yet.
        for other in (keras.models.load_model(tmp_path / "logits.keras", safe_mode=True), cloned):
            np.testing.assert_array_equal(other.predict(x, verbose=0), expected)
        assert all(type(layer).__module__.startswith("keras.") for layer in logits.layers)


def test_a_last_layer_with_other_weights_is_left_alone():
    """LoRA, for one; and in half precision an activation of its own, in front of the softmax."""
    adapted, half = (
        linear(activation="softmax"),
        guide("float16", layers.Dense(3, "tanh", dtype="float16")),
    )
    adapted.layers[-1].enable_lora(2)
    with pytest.raises(ValueError, match="more weights"):
        mnist.logits_of(adapted)
    with pytest.raises(ValueError, match="does not end in a softmax"):
        mnist.logits_of(half)


def test_the_logits_of_an_ensemble_are_those_that_the_message_names():
    image = keras.Input(SHAPE)
    zs = [linear()(image) for _ in range(3)]
    logits = ops.logsumexp(ops.stack([ops.log_softmax(z) for z in zs]), axis=0)
    model = keras.Model(image, logits)
    x = np.random.default_rng(0).random((7, *SHAPE), np.float32)
    mean = keras.Model(image, layers.Average()([ops.softmax(z) for z in zs]))
    np.testing.assert_allclose(
        mnist.softmax(mnist.predict(model, x)), mnist.predict(mean, x), rtol=1e-5
    )
    checks.checked(model, x, np.zeros(7, int))


PIXELS = np.random.default_rng(0).random((2, *SHAPE), np.float32)
UNSUITABLE = {
    "pixels from 0 to 255": (255 * PIXELS, "divide .* by 255"),
    "pixels from -1 to 1": (2 * PIXELS - 1, r"\[0, 1\]: give \(x \+ 1\) / 2; [^5]*offset=-1"),
    "NaN": (np.where(PIXELS > 0.5, np.nan, PIXELS), "^images hold values that are no .*numbers"),
    "one image": (PIXELS[0], r"x\[np.newaxis\]"),
    "no channels": (PIXELS[..., 0], r"x\[..., np.newaxis\]"),
    "a data set": (tf.data.Dataset.from_tensor_slices(PIXELS), "images are .*Dataset"),
    "nothing": (None, "images are "),
}


@pytest.mark.parametrize(("x", "message"), UNSUITABLE.values(), ids=UNSUITABLE)
def test_what_is_no_batch_of_images_is_refused_with_the_way_out(x, message):
    with pytest.raises(ValueError, match=message):
        checks.checked(linear(), x, np.zeros(2, int))


def test_a_changed_activation_is_refused():
    model = linear()
    x, y = np.full((1, *SHAPE), 0.5, np.float32), np.array([0])
    fgsm.fgsm(model, x, y, 0.1)
    model.layers[-1].activation = keras.activations.softmax
    with pytest.raises(ValueError, match="logits_of"):
        fgsm.fgsm(model, x, y, 0.1)


@pytest.mark.parametrize("eps", [8, -0.1, np.nan, "0.1", None, [0.1, 0.2, 0.3], [[], [1]], True])
def test_epsilon_is_in_pixel_units(eps):
    with pytest.raises(ValueError, match=r"eps must be"):
        checks.pixel_size("eps", eps, np.zeros((2, *SHAPE)))


def test_each_image_can_have_an_epsilon_of_its_own():
    model = linear()
    x = np.random.default_rng(0).random((3, *SHAPE), np.float32)
    y, eps = mnist.classify(model, x), [0.0, 0.05, 0.2]
    for targeted in (False, True):
        x_adv = fgsm.fgsm(model, x, y, eps, targeted=targeted, batch_size=2)
        alone = [
            fgsm.fgsm(model, x[i : i + 1], y[i : i + 1], e, targeted=targeted)[0]
            for i, e in enumerate(eps)
        ]
        np.testing.assert_array_equal(x_adv, alone)
    for step_size in (None, 0.01):
        settings = {"steps": 4, "step_size": step_size, "batch_size": 2}
        x_adv = pgd.pgd(model, x, y, eps, **settings)
        assert (np.abs(x_adv - x).reshape(3, -1).max(axis=1) <= np.float32(eps) + 1e-6).all()
        # As many images with one epsilon start and go where each would with that alone.
        each = pgd.pgd(model, x, y, np.full(3, 0.2), **settings)
        np.testing.assert_array_equal(each, pgd.pgd(model, x, y, 0.2, **settings))


def test_the_readmes_own_models_are_attacked():
    """The Python under a heading "Your own model", in whichever README it stands, runs as it is."""
    readmes = [path.read_text(encoding="utf-8") for path in sorted(files.ROOT.glob("*/README.md"))]
    sections = [part for text in readmes for part in re.split("^##+ ", text, flags=re.M)]
    own = [part for part in sections if part.lower().startswith("your own model")]
    blocks = [code for part in own for code in re.findall(r"```python\n(.*?)```", part, re.S)]
    assert blocks
    space = {}
    for block in blocks:
        exec(block, space)
