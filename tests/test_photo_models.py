"""The ImageNet networks: preprocessing inside, weights from a file, one line when they lack."""

import shutil

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from common import files
from common.command import Failure
from common.networks import imagenet, keras_file, mnist
from common.run import photo_rows, photos
from method2_fgsm import fgsm, imnet_fast_gradient

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


def test_a_script_attacks_with_keras_own_network_from_a_file_of_weights(tmp_path, monkeypatch):
    """The network is Keras's own, on Keras's own preprocessing."""
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV2(weights=None, classifier_activation=None)
    weights, output, photographs = (tmp_path / name for name in ("w.h5", "rows.csv", "photographs"))
    write_older_layout(network, weights)
    photographs.mkdir()
    shutil.copy(files.COMMON / "images" / "panda.jpg", photographs)
    loaded, load = [], imagenet.load
    monkeypatch.setattr(imagenet, "load", lambda *a: loaded.append(load(*a)) or loaded[0])
    options = ("--model", "mobilenet_v2", "--weights", weights, "--eps", 0.02)
    paths = ("--images", photographs, "--output", output)
    imnet_fast_gradient.main([str(argument) for argument in (*options, *paths)])
    (row,), (model,) = photo_rows.read(output), loaded

    x = photos.read(photographs / "panda.jpg", 224)[np.newaxis] / np.float32(255)
    z = network.predict_on_batch(PREPROCESS_INPUT["mobilenet_v2"](x * np.float32(255)))
    np.testing.assert_allclose(model.predict_on_batch(x), z, rtol=1e-4, atol=1e-5)
    x_adv = fgsm.fgsm(model, x, z.argmax(axis=1), 0.02)
    assert (row["path"], int(row["y_pred"])) == ("panda.jpg", z.argmax())
    assert int(row["y_pred_adversarial"]) == model.predict_on_batch(x_adv).argmax()
    assert float(row["linf"]) == pytest.approx(0.02, abs=1e-6)


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
