"""Random search over squares asks for answers alone, stays in its box and only ever gets nearer."""

import keras
import numpy as np

from common.networks import mnist
from method2_fgsm.robust.square import square

EPS = 0.1


def lead(model, x, y):
    logits = mnist.predict(model, x)
    own = logits[np.arange(len(y)), y]
    logits[np.arange(len(y)), y] = -np.inf
    return own - logits.max(axis=1)


def test_each_query_leaves_the_label_less_of_its_lead(trained, right):
    x, y = right(trained["mlp"], 40)
    leads = [
        lead(trained["mlp"], square(trained["mlp"], x, y, 0.05, queries=n), y) for n in (1, 20, 200)
    ]
    # Of one run: the same seed, but the sizes of the squares depend on the number of queries.
    assert leads[0].mean() > leads[1].mean() > leads[2].mean()


def test_it_stays_in_the_box_and_moves_every_pixel_to_its_edge(trained, right):
    x, y = right(trained["softmax"], 40)
    x_adv = square(trained["softmax"], x, y, EPS, queries=50)
    edges = np.abs(x_adv - np.clip(x + EPS, 0, 1)), np.abs(x_adv - np.clip(x - EPS, 0, 1))
    np.testing.assert_allclose(np.minimum(*edges), 0, atol=1e-6)


def test_the_seed_repeats_it_in_any_batch_and_a_misclassified_image_stays(trained, right):
    x, y = right(trained["mlp"], 30)
    settings = {"queries": 30, "seed": 4}
    x_adv = square(trained["mlp"], x, y, EPS, **settings)
    again = square(trained["mlp"], x, y, EPS, batch_size=7, **settings)
    np.testing.assert_array_equal(again, x_adv)
    assert (square(trained["mlp"], x, y, EPS, queries=30, seed=5) != x_adv).any()
    np.testing.assert_array_equal(square(trained["mlp"], x, (y + 1) % 10, EPS), x)


def test_a_model_of_its_own_class_with_nothing_to_attack_gets_its_images_back():
    class Declared(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(3)

        def call(self, x):
            return self.dense(self.flatten(x))

    model, x = Declared(), np.random.default_rng(0).random((4, 5, 5, 2), np.float32)
    wrong = (model(x).numpy().argmax(axis=1) + 1) % 3
    for rows in (slice(None), slice(0)):
        np.testing.assert_array_equal(square(model, x[rows], wrong[rows], EPS), x[rows])
