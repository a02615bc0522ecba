"""The fast gradient sign method does what Goodfellow et al. (2015) wrote down."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.networks import mnist
from method2_fgsm import fgsm


def cross_entropy(logits, y):
    """J = -log p_y, in float64."""
    logits = np.asarray(logits, np.float64)
    top = logits.max(axis=1)
    return np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - logits[np.arange(len(y)), y]


@pytest.mark.parametrize("targeted", [False, True])
def test_on_softmax_regression_it_is_the_closed_form(trained, right, targeted):
    model = trained["softmax"]
    x, y = right(model, 200)
    labels = (y + 1) % 10 if targeted else y
    weights, bias = (w.astype(np.float64) for w in model.get_weights())
    p = mnist.softmax(x.reshape(-1, 784) @ weights + bias)
    gradient = ((p - np.eye(10)[labels]) @ weights.T).reshape(x.shape)  # of -log p_y
    clear = np.abs(gradient) > 1e-6 * np.abs(gradient).max()  # where the sign is not rounding
    expected = np.clip(x + (-0.2 if targeted else 0.2) * np.sign(gradient), 0, 1)
    assert clear.mean() > 0.99
    # In full batches and a rest, and all at once.
    for batch_size in (64, 1000):
        x_adv = fgsm.fgsm(model, x, labels, 0.2, targeted=targeted, batch_size=batch_size)
        np.testing.assert_allclose(x_adv[clear], expected[clear], atol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_gradient_agrees_with_finite_differences(name):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("float64")
        keras.utils.set_random_seed(1)
        model = mnist.build(name)
    finally:
        keras.config.set_dtype_policy(before)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0.2, 0.8, (3, 28, 28)), np.array([1, 7, 4])
    sign = fgsm.gradient_sign(model, tf.constant(x), y).numpy()
    step = 1e-6
    for row, column in rng.integers(4, 24, (25, 2)):
        nudge = np.zeros_like(x)
        nudge[:, row, column] = step
        ahead, back = (cross_entropy(model(tf.constant(x + s * nudge)).numpy(), y) for s in (1, -1))
        slope = (ahead - back) / (2 * step)
        clear = np.abs(slope) > 1e-7
        assert (sign[:, row, column] == np.sign(slope))[clear].all()


def test_the_ascent_is_the_gradient_of_the_cross_entropy_over_one_minus_p():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(6, 10)), np.arange(6)
    p = mnist.softmax(logits)
    p_y = p[np.arange(6), y]
    expected = (p - np.eye(10)[y]) / (1 - p_y)[:, None]
    np.testing.assert_allclose(fgsm.ascent(tf.constant(logits), y), expected, rtol=1e-10)


def test_the_sign_does_not_vanish_where_the_model_is_certain(trained, right):
    x, y = right(trained["softmax"], 20)
    certain = keras.models.clone_model(trained["softmax"])
    certain.set_weights([1000 * w for w in trained["softmax"].get_weights()])
    p = mnist.softmax(mnist.predict(certain, x))
    assert (p[np.arange(20), y] == 1).all()  # in float32: the gradient of -log p_y rounds to zero
    sign = fgsm.gradient_sign(certain, x, y).numpy()
    assert (np.abs(sign).mean(axis=(1, 2)) > 0.9).all()
