"""The ImageNet networks: preprocessing inside, weights from a file, one line when they lack."""

import shutil

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from common import files
from common.command import Failure
from common.networks import imagenet, mnist
from common.run import photo_rows, photos
from method2_fgsm import fgsm, imnet_fast_gradient

PREPROCESS_INPUT = {
    "vgg16": keras.applications.vgg16.preprocess_input,
    "resnet50": keras.applications.resnet50.preprocess_input,
    "mobilenet_v2": keras.applications.mobilenet_v2.preprocess_input,
}


@pytest.mark.parametrize("name", PREPROCESS_INPUT)
def test_preprocessing_equals_that_of_keras(name):
    """On all 8-bit values, and exactly on what lies between them up to float32's rounding."""
    x = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    x[0] = (np.arange(192).reshape(8, 8, 3) + 64).astype(np.float32) / np.float32(255)
    expected = PREPROCESS_INPUT[name](x * np.float32(255))
    found = np.asarray(imagenet.preprocess(name, x))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 if name != "mobilenet_v2" else 0)


@pytest.mark.parametrize("name", PREPROCESS_INPUT)
def test_the_gradient_of_the_preprocessing_is_its_slope(name):
    """Each output channel belongs to one input channel: 255 pixel values for each 1 of x."""
    x = tf.random.stateless_uniform((1, 2, 2, 3), (0, 0))
    with tf.GradientTape() as tape:
        tape.watch(x)
        # Red of the network's input weighs 100, green 10, blue 1 (as x has them).
        order = (1.0, 10.0, 100.0) if name != "mobilenet_v2" else (100.0, 10.0, 1.0)
        total = tf.reduce_sum(imagenet.preprocess(name, x) * tf.constant(order))
    scale = 255 if name != "mobilenet_v2" else 2
    expected = np.broadcast_to(np.array([100, 10, 1]) * scale, (1, 2, 2, 3))
    np.testing.assert_allclose(tape.gradient(total, x), expected, rtol=1e-5)


# VGG16 as its paper's table 1 has it (column D), each layer with the shape of its kernel.
VGG16_LAYERS = {
    **{
        f"block{block}_conv{i}": (3, 3, channels if i > 1 else before, channels)
        for block, before, channels, convolutions in (
            (1, 3, 64, 2),
            (2, 64, 128, 2),
            (3, 128, 256, 3),
            (4, 256, 512, 3),
            (5, 512, 512, 3),
        )
        for i in range(1, convolutions + 1)
    },
    "fc1": (7 * 7 * 512, 4096),
    "fc2": (4096, 4096),
    "predictions": (4096, 1000),
}


def write_vgg16_weights(path):
    """Random weights in the layout of the file that keras.applications downloads.

    He's scale keeps the activations in range.  Of the two largest arrays only a part is written:
    HDF5 reads the rest as zeros, and half a gigabyte need not go through the disk.  The first
    layer weighs its inputs differently, as blue : green : red = 1 : 2 : 4.
    """
    rng = np.random.default_rng(0)
    written = {"fc1": (25088, 64), "fc2": (64, 4096)}
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ("input_1", *VGG16_LAYERS)]
        file.create_group("input_1").attrs["weight_names"] = []
        for layer, shape in VGG16_LAYERS.items():
            group = file.create_group(layer)
            names = f"{layer}_W_1:0", f"{layer}_b_1:0"
            group.attrs["weight_names"] = [name.encode() for name in names]
            part = written.get(layer, shape)
            kernel = rng.standard_normal(part, np.float32) * np.sqrt(2 / np.prod(shape[:-1]))
            if layer == "block1_conv1":
                kernel *= np.array([1, 2, 4])[:, np.newaxis]
            stored = group.create_dataset(names[0], shape, "f4", chunks=part)
            stored[tuple(slice(n) for n in part)] = kernel
            group.create_dataset(names[1], data=np.zeros(shape[-1], np.float32))


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory):
    """The script's run on one photograph with a weights file: (model, weights file, CSV row)."""
    folder = tmp_path_factory.mktemp("vgg16")
    weights, output, photographs = folder / "w.h5", folder / "rows.csv", folder / "photographs"
    write_vgg16_weights(weights)
    photographs.mkdir()
    shutil.copy(files.COMMON / "images" / "panda.jpg", photographs)
    loaded, load = [], imagenet.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagenet, "load", lambda *a: loaded.append(load(*a)) or loaded[0])
        arguments = ("--model", "vgg16", "--weights", weights, "--eps", 0.02)
        paths = ("--images", photographs, "--output", output)
        imnet_fast_gradient.main([str(argument) for argument in (*arguments, *paths)])
    (row,) = photo_rows.read(output)
    yield loaded[0], weights, row
    weights.unlink()


def test_vgg16_is_keras_own_network_on_keras_own_preprocessing(vgg16):
    model, path, _ = vgg16
    assert model.input_shape == (None, 224, 224, 3)
    assert model.output_shape == (None, 1000)
    network = model.get_layer("vgg16")
    with h5py.File(path) as file:
        for layer in ("block1_conv1", "block5_conv3", "predictions"):
            for name, found in zip(
                file[layer].attrs["weight_names"], network.get_layer(layer).weights, strict=True
            ):
                np.testing.assert_array_equal(found, file[layer][name])
    x = np.random.default_rng(1).random((1, 224, 224, 3), np.float32)
    expected = network.predict_on_batch(PREPROCESS_INPUT["vgg16"](x * np.float32(255)))
    assert expected.std() > 1
    np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-4, atol=1e-3)
    swapped = model.predict_on_batch(x[..., ::-1])
    assert np.abs(swapped - expected).max() > 0.1


def test_the_script_attacks_with_vgg16_from_a_weights_file(vgg16):
    model, _, row = vgg16
    x = photos.read(files.COMMON / "images" / "panda.jpg", 224)[np.newaxis] / np.float32(255)
    y = model.predict_on_batch(x).argmax(axis=1)
    x_adv = fgsm.fgsm(model, x, y, 0.02)
    assert row["path"] == "panda.jpg"
    assert int(row["y_pred"]) == y
    assert int(row["y_pred_adversarial"]) == model.predict_on_batch(x_adv).argmax()
    assert float(row["linf"]) == pytest.approx(0.02, abs=1e-6)


def test_weights_in_keras_newer_layout_are_read(tmp_path):
    path = tmp_path / "mobilenet.weights.h5"
    network = keras.applications.MobileNetV2(weights=None, classifier_activation=None)
    network.save_weights(path)
    model = imagenet.load("mobilenet_v2", path)
    x = np.random.default_rng(0).random((1, 224, 224, 3), np.float32)
    np.testing.assert_allclose(
        model(x, training=False), network(x * 2 - 1, training=False), atol=1e-5
    )


def test_weights_of_another_network_are_refused(tmp_path):
    """What else may be wrong with weights, tests/test_bad_input.py says."""
    path = tmp_path / "mlp.weights.h5"
    mnist.build("mlp").save_weights(path)
    for name in ("efficientnet_lite0", "mobilenet_v2"):
        with pytest.raises(Failure, match=r"does not hold the weights of \w+Net.* with its 1000"):
            imagenet.load(name, path)


def test_without_network_and_weights_one_line_names_both_ways_out(monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise OSError("URL fetch failure on https://example.org: None\n-- [Errno -3]")

    monkeypatch.setattr(keras.utils, "get_file", no_network)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", no_network)
    with pytest.raises(Failure, match=r"connect to the internet, or .*--weights FILE") as caught:
        imagenet.load("mobilenet_v2")
    assert "\n" not in str(caught.value)
