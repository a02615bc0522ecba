"""The ImageNet networks: preprocessing inside, weights from a file, one line when they lack."""

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from common.command import Failure
from common.networks import imagenet, keras_file, mnist, own_model

PREPROCESS_INPUT = {
    "vgg16": keras.applications.vgg16.preprocess_input,
    "resnet50": keras.applications.resnet50.preprocess_input,
    "mobilenet_v2": keras.applications.mobilenet_v2.preprocess_input,
}


@pytest.mark.parametrize("name", PREPROCESS_INPUT)
def test_preprocessing_and_its_slope_are_those_of_keras(name):
    """On all 8-bit values, and exactly on what lies between them up to float32's rounding."""
    x = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    x[0] = (np.arange(192).reshape(8, 8, 3) + 64).astype(np.float32) / np.float32(255)
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        fed = keras_file.scaled(x, imagenet.PIXELS[name])
        total = tf.reduce_sum(fed * tf.constant([1.0, 10, 100]))
    expected = PREPROCESS_INPUT[name](x.numpy() * np.float32(255))
    np.testing.assert_allclose(fed, expected, rtol=0, atol=1e-5)
    scale, order = (2, [1, 10, 100]) if name == "mobilenet_v2" else (255, [100, 10, 1])
    slope = np.broadcast_to(scale * np.array(order), x.shape)
    np.testing.assert_allclose(tape.gradient(total, x), slope, rtol=1e-5)


def write_older_layout(network, path):
    """The weights of a network in the layout of the files that keras.applications downloads."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in network.layers]
        for layer in network.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.get_weights(), strict=True):
                group[name] = weight


def test_weights_from_a_file_make_keras_own_network_on_its_own_preprocessing(tmp_path):
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV2(weights=None, classifier_activation=None)
    write_older_layout(network, tmp_path / "w.h5")
    opened = imagenet.open_any("mobilenet_v2", weights=tmp_path / "w.h5")
    assert (opened.classes, opened.shape) == (1000, (224, 224, 3))
    model, judge = own_model.load(opened)
    assert judge is model
    x = np.random.default_rng(0).random((1, 224, 224, 3), np.float32)
    z = network(PREPROCESS_INPUT["mobilenet_v2"](x * np.float32(255)), training=False)
    np.testing.assert_allclose(model(x, training=False), z, rtol=1e-4, atol=1e-5)


def test_weights_of_another_network_are_refused(tmp_path):
    """What else may be wrong with weights, tests/test_bad_input.py says."""
    path = tmp_path / "mlp.weights.h5"
    mnist.build("mlp").save_weights(path)
    for name in ("efficientnet_lite0", "mobilenet_v2"):
        with pytest.raises(Failure, match=r"does not hold the weights of \w+Net.* with its 1000"):
            imagenet.load(name, path)


def test_without_network_and_weights_one_line_names_both_ways_out(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("URL fetch failure on https://example.org: None\n-- [Errno -3]")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", no_network)
    with pytest.raises(Failure, match=r"connect to the internet, or .*--weights FILE") as caught:
        imagenet.load("mobilenet_v2")
    assert "\n" not in str(caught.value)
