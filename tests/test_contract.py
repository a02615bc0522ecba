"""Whatever Keras model a user brings, an attack works on it or says in one line why it cannot.

The small models here see images (4, 3, 1); the attacks are all that the collection offers.
"""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import contract, files, models
from common.compiled import compiled
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


@pytest.fixture(params=ATTACKS)
def attacked(request):
    """A function: attack a model's own answers on six images, by each attack in turn."""

    def run(model, shape=SHAPE):
        x = np.random.default_rng(0).random((6, *shape), np.float32)
        y = np.arange(6) % 2
        return ATTACKS[request.param](model, x, y, 1 - y)

    return run


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


def policy(name, **settings):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        return linear(**settings)
    finally:
        keras.config.set_dtype_policy(before)


TAKEN = {
    "a subclassed model that was called": lambda: called(Subclassed()),
    "a Sequential without an input that was called": lambda: called(
        keras.Sequential([layers.Flatten(), layers.Dense(3)])
    ),
    "images of any size": lambda: functional(
        layers.Conv2D(4, 2), layers.GlobalAveragePooling2D(), layers.Dense(3), shape=(None, None, 1)
    ),
    "float64": lambda: policy("float64"),
    "float64 images": lambda: functional(
        layers.Flatten(dtype="float64"), layers.Dense(3, dtype="float64")
    ),
    "mixed_float16 with logits in float32": lambda: functional(
        layers.Flatten(), layers.Dense(4, dtype="mixed_float16"), layers.Dense(3, dtype="float32")
    ),
    "two logits, 0 and z": lambda: functional(
        layers.Flatten(), layers.Dense(1), layers.Lambda(lambda z: ops.pad(z, [[0, 0], [1, 0]]))
    ),
    "the logarithms of probabilities": lambda: linear(activation="log_softmax"),
}


@pytest.mark.parametrize("kind", [*TAKEN][:4])
def test_every_attack_takes(attacked, kind):
    x_adv = attacked(TAKEN[kind]())
    assert x_adv.dtype == np.float32
    assert np.isfinite(x_adv).all()
    assert not np.isin(x_adv, 0.5).all()


@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN)
def test_the_noise_reaches_its_targets_on(make):
    model = make()
    x = np.random.default_rng(0).random((8, *SHAPE), np.float32)
    y_target = (models.classify(model, x) + 1) % models.predict(model, x).shape[1]
    noise = attack.find_noise(model, x, y_target, method="minimal")
    reached = attack.reached(model, x, noise, y_target)
    np.testing.assert_array_equal(reached, attack.classify(model, x, noise) == y_target)
    eps, x_adv = smallest_eps(model, x, y_target)
    found = np.isfinite(eps)
    assert (models.classify(model, x_adv)[found] == y_target[found]).all()
    assert reached[found].all()  # what one step along the sign can do, the smallest noise can
    assert reached.any()


def two_heads():
    image = keras.Input(SHAPE)
    flat = layers.Flatten()(image)
    return keras.Model(image, [layers.Dense(3)(flat), layers.Dense(2)(flat)])


def two_inputs():
    images = keras.Input(SHAPE), keras.Input(SHAPE)
    return keras.Model(images, layers.Dense(3)(layers.Flatten()(images[0] + images[1])))


def wrapped_softmax():
    return functional(linear(), layers.Softmax())


def with_last(function):
    return functional(layers.Flatten(), layers.Dense(3), layers.Lambda(function))


def broken(weights):
    model = linear()
    model.set_weights([np.array(part) for part in weights])
    return model


PROBABILITIES = {
    "Dense with softmax": lambda: linear(activation="softmax"),
    "a Softmax layer": wrapped_softmax,
    "an Activation layer": lambda: functional(
        layers.Flatten(), layers.Dense(3), layers.Activation("softmax")
    ),
    "a model within a model": lambda: functional(layers.Reshape((12,)), keras.Sequential(
        [keras.Input((12,)), layers.Dense(5, activation="relu"), layers.Dense(3, "softmax")]
    )),
    "keras.ops.softmax": lambda: keras.Model(
        (model := linear()).inputs, ops.softmax(model.outputs[0])
    ),
}  # fmt: skip
WITHOUT_LAYERS = {
    "a Lambda layer": lambda: with_last(lambda z: ops.softmax(z)),
    "a subclassed model": lambda: called(Subclassed(ops.softmax)),
    "probabilities that are no softmax": lambda: with_last(
        lambda z: (1 + z**2) / ops.sum(1 + z**2, axis=1, keepdims=True)
    ),
}
REFUSED = {
    **{what: (make, r"models\.logits_of\(model\)") for what, make in PROBABILITIES.items()},
    **{what: (make, r"models\.logits_of\(model\)") for what, make in WITHOUT_LAYERS.items()},
    "one sigmoid output": (lambda: linear(1, activation="sigmoid"), "0 and z"),
    "two outputs": (two_heads, "one output"),
    "two inputs": (two_inputs, "2 inputs"),
    "a subclassed model that was not called": (Subclassed, "call it on one image first"),
    "a Sequential that was not called": (
        lambda: keras.Sequential([layers.Flatten(), layers.Dense(3)]),
        "call it on one image first",
    ),
    "a map of logits": (lambda: functional(layers.Dense(3)), "not one row of logits"),
    "images of another size": (lambda: called(Subclassed()), r"does not take images \(5, 3, 1\)"),
    "float16": (lambda: policy("float16"), "float16"),
    "mixed_float16": (lambda: policy("mixed_float16"), "mixed_float16"),
    "no gradient": (lambda: with_last(ops.stop_gradient), "cannot be differentiated"),
    "steps without a slope": (
        lambda: functional(
            layers.Flatten(), layers.Lambda(lambda x: ops.sign(x - 0.5)), layers.Dense(3)
        ),
        "cannot be differentiated",
    ),
    "whole numbers": (lambda: with_last(lambda z: ops.cast(z, "int32")), "int32"),
    "a name": (lambda: "mlp", "'mlp' is not a Keras model"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_a_model_that_cannot_be_attacked_is_refused(make, message):
    shape = (5, 3, 1) if "5, 3, 1" in message else SHAPE
    for count in (2, 0):
        with pytest.raises(ValueError, match=message):
            contract.checked(make(), np.full((count, *shape), 0.5), np.zeros(count, int))


def test_every_attack_refuses_it(attacked):
    with pytest.raises(ValueError, match=r"models\.logits_of\(model\)"):
        attacked(linear(activation="softmax"))


@pytest.mark.parametrize("bias", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_counted(attacked, bias):
    with pytest.raises(ValueError, match="not finite numbers for 6 of 6 images"):
        attacked(broken([np.ones((12, 3)), [0, bias, 0]]))


@pytest.mark.parametrize("name", ATTACKS)
def test_the_images_whose_gradient_is_not_finite_are_counted(name):
    """sqrt has no slope at 0: two images of six are black."""
    if name == "pgd":
        pytest.skip("it starts from a random point, where there is a slope")
    model = functional(layers.Flatten(), layers.Lambda(ops.sqrt), layers.Dense(2))
    x = np.random.default_rng(0).uniform(0.2, 0.8, (6, *SHAPE)).astype(np.float32)
    x[[1, 4]] = 0
    y = models.classify(model, x)
    with pytest.raises(ValueError, match="not finite numbers for 2 of 6 images"):
        ATTACKS[name](model, x, y, 1 - y)


def test_logits_that_happen_to_lie_between_0_and_1_are_logits():
    """A classifier that always says 0 by a logit of one, and all others zero."""
    model = broken([np.zeros((12, 3)), [1, 0, 0]])
    x, y = np.random.default_rng(0).random((4, *SHAPE), np.float32), np.zeros(4, int)
    np.testing.assert_array_equal(fgsm.fgsm(model, x, y, 0.1), x)


@pytest.mark.parametrize("make", PROBABILITIES.values(), ids=PROBABILITIES)
def test_logits_of_is_the_model_without_its_softmax(make):
    model = make()
    logits = models.logits_of(model)
    x = np.random.default_rng(0).random((7, *SHAPE), np.float32)
    np.testing.assert_allclose(
        models.softmax(models.predict(logits, x)), models.predict(model, x), rtol=1e-5
    )
    assert (models.predict(logits, x) < 0).any()
    contract.checked(logits, x, np.zeros(7, int))
    # The weights are the model's own, and it keeps its softmax.
    model.set_weights([2 * w for w in model.get_weights()])
    np.testing.assert_allclose(
        models.softmax(models.predict(logits, x)), models.predict(model, x), rtol=1e-5
    )


@pytest.mark.parametrize(
    "make", [*WITHOUT_LAYERS.values(), linear, lambda: linear(activation="sigmoid"), two_heads]
)
def test_logits_of_says_where_it_cannot(make):
    with pytest.raises(ValueError, match=r"does not (end in a softmax|show its last layer)"):
        models.logits_of(make())


def test_a_changed_activation_or_layer_changes_the_answer():
    model = linear()
    x, y = np.full((1, *SHAPE), 0.5, np.float32), np.array([0])
    fgsm.fgsm(model, x, y, 0.1)
    plain = models.predict(model, x)
    model.layers[-1].activation = keras.activations.softmax
    assert not np.array_equal(models.predict(model, x), plain)
    with pytest.raises(ValueError, match="logits_of"):
        fgsm.fgsm(model, x, y, 0.1)
    model.pop()
    model.add(layers.Dense(3, kernel_initializer="zeros"))
    np.testing.assert_array_equal(fgsm.fgsm(model, x, y, 0.1), x)
    np.testing.assert_array_equal(models.predict(model, x), 0)


@pytest.mark.parametrize("eps", [8, 1.01, -0.1, np.nan, np.inf])
@pytest.mark.parametrize(
    "attack_with",
    [
        lambda eps, *problem: fgsm.fgsm(*problem, eps),
        lambda eps, *problem: pgd.pgd(*problem, eps),
        lambda eps, *problem: smallest_eps(*problem, max_eps=eps),
    ],
)
def test_epsilon_is_in_pixel_units(attack_with, eps):
    with pytest.raises(ValueError, match=r"eps (is in \[0, 1\] pixel units|must be)"):
        attack_with(eps, linear(), np.zeros((1, *SHAPE)), np.array([0]))


def test_where_xla_has_no_compiler_the_function_runs_without_it(monkeypatch):
    """As on Apple's GPUs, and on NVIDIA's without the toolkit."""
    real, tried = tf.function, []

    def function(body, jit_compile=None, **settings):
        def refuses(*arrays):
            tried.append(1)
            raise tf.errors.UnimplementedError(None, None, "no compiler for this device")

        return refuses if jit_compile else real(body, **settings)

    monkeypatch.setattr(tf, "function", function)
    logits = compiled(lambda model, x: model(x), jit_compile=True)
    x = np.full((2, *SHAPE), 0.5, np.float32)
    for model in (linear(), linear()):
        for _ in range(2):
            np.testing.assert_allclose(logits(model, x), model(x), rtol=1e-6)
    assert len(tried) == 1


def test_the_readmes_own_models_are_attacked():
    """The Python under a heading "Your own model", in whichever README it stands, runs as it is."""
    code = [
        block
        for path in sorted(files.ROOT.glob("**/README.md"))
        for section in re.split(r"^##+ ", path.read_text(encoding="utf-8"), flags=re.M)
        if section.lower().startswith("your own model")
        for block in re.findall(r"```python\n(.*?)```", section, re.S)
    ]
    if not code:
        pytest.skip("no README shows it")
    space = {}
    for block in code:
        exec(block, space)
