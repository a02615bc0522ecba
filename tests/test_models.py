"""The models are what their names say, train repeatably, and refuse weights of another."""

import csv
import errno
import fcntl
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.image import imread

from common import data, plots
from common.command import Failure
from common.networks import mnist, training
from common.networks.first_convolution import Conv2D
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
        np.testing.assert_allclose(imread(confusion).shape[:2], (660, 700), atol=1)


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


def test_the_ten_colours_stay_apart_for_colour_blind_eyes():
    """Pairwise distance in CIELAB after a simulation of deuteranopia and protanopia (Machado,
    Oliveira & Fernandes 2009, severity 1, in linear RGB)."""
    to_xyz = [[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8728]]
    protan = [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.052]]
    deutan = [[0.3673, 0.8606, -0.228], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in plots.COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    same_line = np.equal.outer(plots.LINE_STYLES, plots.LINE_STYLES) & ~np.eye(10, dtype=bool)
    for matrix in (np.eye(3), protan, deutan):
        xyz = np.clip(linear @ np.transpose(matrix), 0, 1) @ np.transpose(to_xyz)
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        lab = f @ [[0, 500, 0], [116, -500, 200], [0, 0, -200]]
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
        assert apart[same_line].min() > 8


@pytest.mark.parametrize(
    ("name", "title", "train"),
    [
        ("mlp", "MLP", "common/train_mnist.py --model mlp"),
        ("cnn_adversarial", "CNN, trained on sign steps",
         "method2_fgsm/adversarial_training.py --model cnn"),
        ("strided_certified", "strided CNN, trained on bounds",
         "method2_fgsm/adversarial_training.py --model strided --attack bounds"),
        ("fc10", "FC10", "common/train_mnist.py --hidden"),
        ("fc100-100-10_sigmoid", "FC100-100-10, sigmoid",
         "common/train_mnist.py --hidden 100 100 --activation sigmoid"),
    ],
)  # fmt: skip
def test_a_name_says_what_the_model_is_and_how_it_is_trained(name, title, train):
    assert mnist.known(name)
    assert mnist.title(name) == title
    assert mnist.train_command(name) == f"python {train}"


def test_names_of_no_model_are_refused():
    names = ["", "fc", "fc100", "fc10_sigmoid", "fc0-10_relu", "fc100-10", "mlp_adversarial_"]
    for name in (*names, "softmax_certified", "strided"):
        assert not mnist.known(name)
        for function in (mnist.build, mnist.load):
            with pytest.raises(Failure, match="is not a model: choose softmax, mlp, cnn"):
                function(name)


def test_fully_connected_networks_are_built_from_their_name():
    assert mnist.fully_connected([123, 456], "sigmoid") == "fc123-456-10_sigmoid"
    assert mnist.fully_connected([], "sigmoid") == "fc10"
    for name, layers in (
        ("fc12-45-10_tanh", [(12, "tanh"), (45, "tanh"), (10, "linear")]),
        ("mlp_adversarial", [(300, "relu"), (100, "relu"), (10, "linear")]),
        ("fc10", [(10, "linear")]),
    ):
        found = mnist.build(name).layers[1:]
        assert [(layer.units, layer.activation.__name__) for layer in found] == layers


def test_weights_that_another_program_holds_are_called_that_not_truncated(tmp_path, trained):
    path = tmp_path / "a.weights.h5"
    trained["softmax"].save_weights(path)
    with open(path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Failure, match=f"cannot read .*: {os.strerror(errno.EAGAIN)}"):
            mnist.load("softmax", path)
    mnist.load("softmax", path)
