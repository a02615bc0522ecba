"""Whatever Keras model a user brings, an attack works on it or says in one line why it cannot; what
is compiled for it goes when it changes or goes.

The small models here see images (4, 3, 1); the attacks are all that the collection offers.
"""

import copy
import gc
import re
import weakref
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import files
from common.networks import mnist
from common.search import checks
from common.search.compiled import compiled
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


PROBABILITIES = {
    "Dense with softmax": lambda: linear(activation="softmax"),
    "a Softmax layer": lambda: functional(linear(), layers.Softmax()),
    "a model within a model": lambda: functional(layers.Reshape((12,)), keras.Sequential(
        [keras.Input((12,)), layers.Dense(5, activation="relu"), layers.Dense(3, "softmax")]
    )),
    "the guide to mixed precision": lambda: guide("mixed_float16"),
}  # fmt: skip
WITHOUT_LAYERS = {
    "a subclassed model": lambda: called(Subclassed(ops.softmax)),
    "an operation": lambda: applied(ops.softmax),
    "a softmax, then dropout": lambda: functional(
        linear(activation="softmax"), layers.Dropout(0.5)
    ),
}


def guide(precision):
    """A network as the guide to mixed precision builds it."""
    hidden, half = layers.Dense(5, "tanh", dtype=precision), layers.Dense(3, dtype=precision)
    softmax = layers.Activation("softmax", dtype="float32")
    return functional(layers.Flatten(), hidden, half, softmax)


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
    "no gradient": (lambda: applied(ops.stop_gradient), "cannot be differentiated"),
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


def test_every_attack_refuses_probabilities_and_counts_what_is_not_finite():
    """sqrt has no slope at 0: two images of six are black."""
    attack_all(linear(activation="softmax"), r"logits_of\(model\)")
    model = linear()
    model.set_weights([np.ones((12, 3)), np.array([0, np.inf, 0])])
    attack_all(model, "not finite numbers for 6 of 6 images")
    model = functional(layers.Flatten(), layers.Lambda(ops.sqrt), layers.Dense(2))
    x = np.random.default_rng(0).uniform(0.2, 0.8, (6, *SHAPE)).astype(np.float32)
    x[[1, 4]] = 0
    y = mnist.classify(model, x)
    for name, find in ATTACKS.items():
        if name != "pgd":  # it starts from a random point, where there is a slope
            with pytest.raises(checks.Refused, match="not finite numbers for 2 of 6 images"):
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


def test_logits_of_says_where_it_cannot_and_leaves_logits_alone():
    for make in (*WITHOUT_LAYERS.values(), two_heads):
        with pytest.raises(ValueError, match=r"does not (end in a softmax|show its last layer)"):
            mnist.logits_of(make())
    adapted, model = linear(activation="softmax"), linear()
    adapted.layers[-1].enable_lora(2)
    with pytest.raises(ValueError, match="more weights"):
        mnist.logits_of(adapted)
    assert mnist.logits_of(model) is model


def test_what_logits_of_makes_can_be_saved_and_cloned(tmp_path):
    x = np.random.default_rng(0).random((7, *SHAPE), np.float32)
    for what in ("the guide to mixed precision", "a model within a model"):
        logits = mnist.logits_of(PROBABILITIES[what]())
        expected = mnist.predict(logits, x)
        logits.save(tmp_path / "logits.keras")
        cloned = keras.models.clone_model(logits)
        cloned.set_weights(logits.get_weights())
        # By nothing but Keras, and by a network that was not attacked yet.
        for other in (keras.models.load_model(tmp_path / "logits.keras", safe_mode=True), cloned):
            np.testing.assert_array_equal(other.predict(x, verbose=0), expected)
        assert all(type(layer).__module__.startswith("keras.") for layer in logits.layers)


PIXELS = np.random.default_rng(0).random((2, *SHAPE), np.float32)
UNSUITABLE = {
    "pixels from 0 to 255": (255 * PIXELS, "divide .* by 255"),
    "pixels from -1 to 1": (2 * PIXELS - 1, r"\[0, 1\]: give \(x \+ 1\) / 2; [^5]*offset=-1"),
    "NaN": (np.where(PIXELS > 0.5, np.nan, PIXELS), "^images hold values that are no .*numbers"),
    "no channels": (PIXELS[..., 0], r"x\[..., np.newaxis\]"),
    "a data set": (tf.data.Dataset.from_tensor_slices(PIXELS), "images are .*Dataset"),
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


def test_epsilon_is_in_pixel_units():
    for eps in (8, -0.1, np.nan, "0.1", [0.1, 0.2, 0.3], [[], [1]], True):
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
    readmes = "\n## ".join(path.read_text("utf-8") for path in files.ROOT.glob("*/README.md"))
    own = re.findall(r"(?ms)^##+ Your own model\b(.*?)(?=^##+ |\Z)", readmes)
    blocks = re.findall(r"(?s)```python\n(.*?)```", "".join(own))
    assert blocks
    for block in blocks:
        exec(block, {})


# What is compiled for a model ---------------------------------------------------------------------


def small_network():
    """A convolution, and a network within the network."""
    first = layers.LeakyReLU(), layers.Reshape((5, 1))
    convolution = layers.Conv1D(4, 2, bias_initializer="ones")
    within = functional(layers.Dense(9, "tanh"), shape=(4,))
    last = layers.GlobalMaxPooling1D(), within, layers.Dense(3)
    return functional(*first, convolution, *last, shape=(5,))


def test_a_trace_serves_every_batch_of_its_model_and_no_other_model():
    traced = []

    @compiled
    def logits(model, x):
        traced.append(model.name)
        return model(x)

    first, second = small_network(), small_network()
    for n in (1, 2, 3, 4, 2):
        x = np.full((n, 5), 0.5, np.float32)
        for model in (first, second):
            np.testing.assert_allclose(logits(model, x), model(x), rtol=1e-6)
    first.set_weights([2 * weight for weight in first.get_weights()])  # read, and not traced
    np.testing.assert_allclose(logits(first, x), first(x), rtol=1e-6)
    assert sorted(traced) == sorted([first.name, second.name])


def test_no_attack_holds_on_to_the_weights_of_a_model_that_is_gone():
    x, y = np.full((4, 5), 0.5, np.float32), np.zeros(4, int)
    weights = []
    for _ in range(2):
        model = small_network()
        fgsm.fgsm(model, x, y, 0.1)
        smallest_eps(model, x, y + 1)
        weights += [weakref.ref(variable.value.handle) for variable in model.variables]
    del model
    keras.backend.clear_session()
    gc.collect()
    assert [handle() for handle in weights] == [None] * len(weights)


def sets(name, value, *indices):
    """A change of one attribute of a layer, or of a layer in it."""

    def change(model, folder):
        for index in indices:
            model = model.layers[index]
        setattr(model, name, value)

    return change


def load_weights(model, folder):
    small_network().save_weights(folder / "a.weights.h5")
    model.load_weights(folder / "a.weights.h5")


def other_layer(model, folder):
    model.pop()
    model.add(layers.Dense(3))


CHANGES = {
    "weights": load_weights,
    "quantize": lambda model, folder: model.quantize("int8"),
    "dtype policy": sets("dtype_policy", keras.DTypePolicy("mixed_bfloat16"), 5),
    "another layer": other_layer,
    "activation in a model within": sets("activation", keras.activations.relu, 4, 0),
    "number": sets("negative_slope", 5.0, 0),
    "strides": sets("strides", (3,), 2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_after_an_attack_counts_as_if_it_had_been_so_before(change, tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    keras.utils.set_random_seed(0)
    attacked = small_network()
    before = mnist.predict(attacked, x)
    keras.utils.set_random_seed(0)
    fresh = small_network()
    for model in (attacked, fresh):
        keras.utils.set_random_seed(1)
        change(model, tmp_path)
    now = mnist.predict(attacked, x)
    assert not np.array_equal(now, before)
    np.testing.assert_array_equal(now, mnist.predict(fresh, x))


def test_a_model_that_was_attacked_is_saved_and_copied_like_any_other(tmp_path):
    x, y = np.random.default_rng(0).random((6, 5), np.float32), np.arange(6) % 3
    model = small_network()
    x_adv = fgsm.fgsm(model, x, y, 0.1)
    model.save(tmp_path / "a.keras")
    for other in (keras.models.load_model(tmp_path / "a.keras"), copy.deepcopy(model)):
        np.testing.assert_array_equal(fgsm.fgsm(other, x, y, 0.1), x_adv)


def test_threads_find_what_one_finds():
    rng = np.random.default_rng(0)
    batches = [(rng.random((6, 5), np.float32), rng.integers(0, 3, 6)) for _ in range(8)]
    model = small_network()
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda batch: fgsm.fgsm(model, *batch, 0.1), batches))
    for batch, seen in zip(batches, together, strict=True):
        np.testing.assert_array_equal(fgsm.fgsm(model, *batch, 0.1), seen)
