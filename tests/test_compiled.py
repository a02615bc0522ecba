"""What is compiled for a model is compiled once, and goes when the model changes or goes."""

import copy
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from common.networks import mnist
from common.search.compiled import compiled
from method2_fgsm import fgsm
from method2_fgsm.smallest_eps import smallest_eps


def small_network():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(2)])


def test_a_trace_serves_every_batch_of_its_model_and_no_other_model():
    traced = []

    @compiled
    def logits(model, x):
        traced.append(model.name)
        return model(x)

    first, second = small_network(), small_network()
    for n in (1, 2, 3, 4, 2):
        x = np.full((n, 3), 0.5, np.float32)
        for model in (first, second):
            np.testing.assert_allclose(logits(model, x), model(x), rtol=1e-6)
    first.set_weights([2 * weight for weight in first.get_weights()])  # read, and not traced
    np.testing.assert_allclose(logits(first, x), first(x), rtol=1e-6)
    assert sorted(traced) == sorted([first.name, second.name])


def test_no_attack_holds_on_to_the_weights_of_a_model_that_is_gone():
    x, y = np.full((4, 3), 0.5, np.float32), np.zeros(4, int)
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


def dense():
    first = keras.layers.Dense(64, "tanh", bias_initializer="ones")
    normalized = keras.layers.Normalization(mean=0.5, variance=0.2)
    return keras.Sequential([keras.Input((5,)), normalized, first, keras.layers.Dense(3)])


def nested():
    """A convolution, and a network within the network."""
    first = keras.layers.LeakyReLU(), keras.layers.Reshape((5, 1))
    convolution = keras.layers.Conv1D(4, 2, bias_initializer="ones")
    within = keras.Sequential([keras.Input((4,)), keras.layers.Dense(9, "tanh")])
    last = keras.layers.GlobalMaxPooling1D(), within, keras.layers.Dense(3)
    return keras.Sequential([keras.Input((5,)), *first, convolution, *last])


def load_weights(model, folder):
    dense().save_weights(folder / "a.weights.h5")
    model.load_weights(folder / "a.weights.h5")


def enable_lora(model, folder):
    model.layers[1].enable_lora(2)
    model.layers[1].lora_kernel_b.assign(np.ones((2, 64)))


def other_layer(model, folder):
    model.pop()
    model.add(keras.layers.Dense(3))


def sets(name, value, *indices):
    """A change of one attribute of a layer, or of a layer in it."""

    def change(model, folder):
        for index in indices:
            model = model.layers[index]
        setattr(model, name, value)

    return change


CHANGES = {
    "load_weights": (dense, load_weights),
    "enable_lora": (dense, enable_lora),
    "quantize": (dense, lambda model, folder: model.quantize("int8")),
    "dtype policy": (dense, sets("dtype_policy", keras.DTypePolicy("mixed_bfloat16"), 1)),
    "another layer": (dense, other_layer),
    "activation": (dense, sets("activation", keras.activations.relu, 1)),
    "activation in a model within": (nested, sets("activation", keras.activations.relu, 4, 0)),
    "number": (nested, sets("negative_slope", 5.0, 0)),
    "flag": (nested, sets("use_bias", False, 2)),
    "strides": (nested, sets("strides", (3,), 2)),
}


@pytest.mark.parametrize(("make", "change"), CHANGES.values(), ids=CHANGES)
def test_what_changes_after_an_attack_counts_as_if_it_had_been_so_before(make, change, tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    keras.utils.set_random_seed(0)
    attacked = make()
    before = mnist.predict(attacked, x)
    keras.utils.set_random_seed(0)
    fresh = make()
    for model in (attacked, fresh):
        keras.utils.set_random_seed(1)
        change(model, tmp_path)
    now = mnist.predict(attacked, x)
    assert not np.array_equal(now, before)
    np.testing.assert_array_equal(now, mnist.predict(fresh, x))


def test_a_model_that_was_attacked_is_saved_and_copied_like_any_other(tmp_path):
    x, y = np.random.default_rng(0).random((6, 5), np.float32), np.arange(6) % 3
    model = dense()
    x_adv = fgsm.fgsm(model, x, y, 0.1)
    model.save(tmp_path / "a.keras")
    for other in (keras.models.load_model(tmp_path / "a.keras"), copy.deepcopy(model)):
        np.testing.assert_array_equal(fgsm.fgsm(other, x, y, 0.1), x_adv)


class Remembers(keras.Model):
    """A network that keeps what it computes on the way, as many do."""

    def __init__(self):
        super().__init__()
        self.first, self.second = keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)

    def call(self, x):
        self.hidden = self.first(x)
        return self.second(self.hidden)


def test_threads_find_what_one_finds_and_what_it_leaves_in_a_layer_is_no_change():
    traced = []

    @compiled
    def logits(model, x):
        traced.append(model.name)
        return model(x)

    rng = np.random.default_rng(0)
    batches = [(rng.random((6, 5), np.float32), rng.integers(0, 3, 6)) for _ in range(8)]
    model = Remembers()
    model(batches[0][0])

    def found(batch):
        x, y = batch
        return logits(model, x), mnist.predict(model, x), fgsm.fgsm(model, x, y, 0.1)

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(found, batches))
    for batch, seen in zip(batches, together, strict=True):
        for one, other in zip(found(batch), seen, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert len(traced) <= 2  # once more for the tensor that the first call has left
