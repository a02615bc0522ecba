"""What is compiled for a model is compiled once, and goes when the model goes."""

import gc
import weakref

import keras
import numpy as np

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
    # The first shape, and then one trace for any number of rows.
    assert sorted(traced) == sorted([first.name, second.name] * 2)


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
