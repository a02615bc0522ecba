"""What is compiled for a model is compiled once, and goes when the model goes."""

import functools
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np

from common import models
from common.compiled import compiled
from method1_noise_optimization import attack
from method2_fgsm import fgsm, pgd
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
    assert sorted(traced) == sorted([first.name, second.name])


def test_no_attack_holds_on_to_the_weights_of_a_model_that_is_gone():
    x, y = np.full((4, 3), 0.5, np.float32), np.zeros(4, int)
    weights = []
    for _ in range(2):
        model = small_network()
        fgsm.fgsm(model, x, y, 0.1)
        smallest_eps(model, x, y + 1)
        pgd.pgd(model, x, y, eps=0.1, steps=2)
        for method in attack.METHODS:
            attack.find_noise(model, x, y + 1, method=method, max_steps=2)
        weights += [weakref.ref(variable.value.handle) for variable in model.variables]
    del model
    keras.backend.clear_session()
    gc.collect()
    assert [handle() for handle in weights] == [None] * len(weights)


class Remembers(keras.Model):
    """A network that keeps what it computes on the way, as many do."""

    def __init__(self):
        super().__init__()
        self.first, self.second = keras.layers.Dense(8, "tanh"), keras.layers.Dense(3)

    def call(self, x):
        self.hidden = self.first(x)
        return self.second(self.hidden)


def test_threads_find_what_one_finds():
    """Each time with networks for which nothing is compiled yet."""
    rng = np.random.default_rng(0)
    batches = [(rng.random((6, 5), np.float32), rng.integers(0, 3, 6)) for _ in range(8)]

    def found(model, batch):
        x, y = batch
        noise = attack.find_noise(model, x, y, max_steps=5)
        return (
            models.predict(model, x),
            fgsm.fgsm(model, x, y, 0.1),
            smallest_eps(model, x, y)[1],
            noise,
        )

    for _ in range(3):
        ends_in_softmax = keras.Sequential(
            [keras.Input((5,)), keras.layers.Dense(4), keras.layers.Dense(3, "softmax")]
        )
        remembers = Remembers()
        remembers(batches[0][0])
        for model in (models.logits_of(ends_in_softmax), remembers):
            with ThreadPoolExecutor(4) as threads:
                together = list(threads.map(functools.partial(found, model), batches))
            # The softmax is where it was, and one thread finds the same.
            assert ends_in_softmax.layers[-1].activation is keras.activations.softmax
            for batch, seen in zip(batches, together, strict=True):
                for one, other in zip(found(model, batch), seen, strict=True):
                    np.testing.assert_allclose(one, other, atol=1e-5)
