"""A network of one's own, from its file: what it becomes, and what is refused."""

import json
import re
import zipfile
from types import SimpleNamespace
from unittest.mock import Mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from common import check_results, data, files, results
from common.command import Failure
from common.networks import keras_file, mnist, own_model
from common.run import attack_run
from method1_noise_optimization import (
    attack_mnist,
    compare_methods,
    every_pair,
    visualize_adv_examples,
)
from method2_fgsm import epsilon, fgsm, mnist_fast_gradient, robustness, two_to_six, visualize_mnist
from method2_fgsm.robust import ensemble


def saved(path, shape, *stack):
    """A network of these layers, saved; returns it."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input(shape), *stack])
    network.save(path)
    return network


def squares(count, seed=0):
    """Images (count, 8, 6, 3) with a bright left, middle or right third, and which it is."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    x = rng.uniform(0, 0.4, (count, 8, 6, 3))
    for image, label in zip(x, y, strict=True):
        image[:, 2 * label : 2 * label + 2] += 0.5
    return x.astype(np.float32), y


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """(file, samples): a small colour network for pixels up to 255, with a softmax at its end."""
    folder = tmp_path_factory.mktemp("mine")
    x, y = squares(400)
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((8, 6, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy")
    network.optimizer.learning_rate = 0.02
    network.fit(255 * x, y, epochs=8, verbose=0)
    network.save(folder / "mine.keras")
    x, y = squares(60, 1)
    names = ["left", "middle", "right"]
    np.savez(folder / "mine.npz", images=np.round(255 * x).astype(np.uint8), labels=y, names=names)
    return folder / "mine.keras", folder / "mine.npz"


def arguments(mine):
    return ["--model", str(mine[0]), "--samples", str(mine[1])]


@pytest.mark.parametrize(
    ("takes", "given"),
    [
        ((6, 5), (6, 5)),
        ((6, 5, 1), (6, 5)),
        ((6, 5), (6, 5, 1)),
        ((30,), (6, 5)),
        ((90,), (6, 5, 3)),
        ((None, None, 3), (6, 5, 3)),
    ],
)
def test_images_go_in_as_the_network_declares_them(tmp_path, takes, given):
    pool = layers.GlobalAveragePooling2D() if None in takes else layers.Flatten()
    network = saved(tmp_path / "n.keras", takes, pool, layers.Dense(4, activation="softmax"))
    x = np.random.default_rng(0).random((5, *given), np.float32)
    model = keras_file.load(tmp_path / "n.keras", given, "0..1")[0]
    shape = given if None in takes else takes
    expected = network(x.reshape(5, *shape)).numpy()
    np.testing.assert_allclose(mnist.softmax(model(x).numpy()), expected, rtol=1e-5)


def test_pixels_are_what_keras_itself_makes_of_them(tmp_path):
    network = saved(tmp_path / "n.keras", (4, 4, 3), layers.Flatten(), layers.Dense(5))
    x = np.random.default_rng(0).random((3, 4, 4, 3), np.float32)
    fed = {kind: scale * x + offset for kind, (scale, offset) in keras_file.PIXELS.items()}
    for mode in ("caffe", "torch"):
        fed[mode] = keras.applications.imagenet_utils.preprocess_input(255 * x, mode=mode)
    for kind in keras_file.KINDS:
        model = keras_file.load(tmp_path / "n.keras", (4, 4, 3), kind)[0]
        np.testing.assert_allclose(model(x), network(fed[kind]), rtol=1e-4, atol=1e-4)


def test_one_sigmoid_becomes_two_logits_and_ten_lose_theirs(tmp_path):
    x = np.random.default_rng(0).random((7, 4, 4), np.float32)
    for ending in (
        [layers.Dense(1, activation="sigmoid")],
        [layers.Dense(1), layers.Activation("sigmoid")],
    ):
        keras.utils.clear_session()  # layers made from here on have the names of those in the file
        network = saved(tmp_path / "yes.keras", (4, 4), layers.Flatten(), *ending)
        keras.utils.clear_session()
        z = keras_file.load(tmp_path / "yes.keras", (4, 4), "0..1")[0](x).numpy()
        assert not z[:, 0].any()
        np.testing.assert_allclose(mnist.softmax(z)[:, 1:], network(x), rtol=1e-5)
    network = saved(tmp_path / "ten.keras", (16,), layers.Dense(10, activation="sigmoid"))
    z = keras_file.load(tmp_path / "ten.keras", (4, 4), "0..1")[0](x).numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-z)), network(x.reshape(7, 16)), rtol=1e-5)


def test_the_pixels_are_found_on_the_samples(mine, capsys):
    x, y, names = data.load_own_samples(mine[1])
    found = own_model.open_network(mine[0], x, y, names=names)
    assert (found.pixels, found.classes, found.shape) == ("0..255", 3, (8, 6, 3))
    said, warned = capsys.readouterr()
    assert "pixels 0..255" in said
    assert "without the softmax or sigmoids at its end" in said
    assert not warned
    own_model.open_network(mine[0], x, (y + 1) % 3, names=names)  # another order of the classes
    assert "chance" in capsys.readouterr().err
    with pytest.raises(Failure, match="a label 3"):
        own_model.open_network(mine[0], x, y + 1, names=names)
    with pytest.raises(Failure, match="2 names"):
        own_model.open_network(mine[0], x, y, names=names[:2])


def thirds(path, scale, *first, end=None):
    """Write a network whose logits are the brightness of the three thirds times `scale`.

    Without a bias it says the same whatever all pixels are multiplied by.
    """
    last = layers.Dense(3, use_bias=False, activation=end)
    network = saved(path, (8, 6, 3), *first, layers.Flatten(), last)
    third = np.eye(3).repeat(2, axis=0)[:, np.newaxis]
    last.set_weights([scale * np.broadcast_to(third, (8, 6, 3, 3)).reshape(144, 3)])
    network.save(path)
    return path


@pytest.mark.parametrize("wrong", [0, 4])
@pytest.mark.parametrize(("scale", "pixels"), [(0.3, "0..1"), (0.3 / 255, "0..255")])
@pytest.mark.parametrize("end", [None, "softmax", "sigmoid"])
def test_among_pixels_that_do_as_well_the_lowest_cross_entropy_decides(
    tmp_path, capsys, end, scale, pixels, wrong
):
    """A network is too sure of larger pixels than it learned on, and too unsure of smaller ones."""
    x, y = squares(200)
    z = 0.3 * x.astype(np.float64).reshape(200, 8, 3, 2, 3).sum(axis=(1, 3, 4))
    y[:wrong] = (y[:wrong] + 1) % 3
    loss = np.log(np.exp(z).sum(axis=1)) - z[range(200), y]
    found = own_model.open_network(thirds(tmp_path / "n.keras", scale, end=end), x, y)
    said, warned = capsys.readouterr()
    assert found.pixels == pixels
    assert f"({1 - wrong / 200:.1%} right" in said
    assert float(re.search(r"cross entropy ([\d.]+)", said)[1]) == pytest.approx(
        loss.mean(), abs=0.01
    )
    assert not warned


def test_where_two_kinds_of_pixels_do_as_well_it_is_said(tmp_path, capsys):
    x, y = squares(50)
    path = thirds(tmp_path / "n.keras", 9, layers.Flatten(), layers.UnitNormalization())
    own_model.open_network(path, x, y)
    error = capsys.readouterr().err
    assert re.search(r"as good with pixels 0\.\.\S+ and 0\.\.\S+: say which with --pixels", error)


def test_the_samples_may_be_sorted_by_class(tmp_path, capsys, monkeypatch):
    x, y = squares(300)
    order = np.argsort(y)
    x, y = x[order], y[order]
    np.savez(tmp_path / "s.npz", images=x, labels=y)
    path = thirds(tmp_path / "n.keras", 0.3)
    monkeypatch.setattr(own_model, "TRIED", 60)
    own_model.open_network(path, x, np.where(y == 0, 1, y))  # wrong in one class of three
    assert not capsys.readouterr().err
    for seed in (3, 4):
        args = SimpleNamespace(model=path, samples=tmp_path / "s.npz", pixels="0..1", seed=seed)
        _, _, _, images, labels, _ = attack_run.opened(args, 30)
        places = np.random.default_rng(seed).choice(300, 30, replace=False)
        np.testing.assert_array_equal(images, x[np.sort(places)])
        np.testing.assert_array_equal(labels, y[np.sort(places)])
    compared = []

    def noise_of(model, judge, x, *_):
        compared.append(mnist.classify(model, x))
        return np.zeros_like(x), np.ones(len(x), bool)

    monkeypatch.setattr(compare_methods, "noise_of", noise_of)
    options = ["--model", str(path), "--samples", str(tmp_path / "s.npz"), "--limit", "40"]
    compare_methods.main([*options, "--output", str(tmp_path / "f.png")])
    assert len(compared[0]) == 40
    assert np.bincount(compared[0]).min() > 5


def dark(largest):
    return np.random.default_rng(0).integers(0, largest + 1, (40, 8, 6, 3), np.uint8)


def test_whole_numbers_that_never_come_near_255_need_a_word(tmp_path, place, refuses):
    """Grey levels from 0 to 16 say nothing of what was white when the network was trained."""
    path, samples = thirds(tmp_path / "n.keras", 0.3), place / "s.npz"
    labels = np.arange(40) % 3
    script = "method2_fgsm/mnist_fast_gradient", "--model", path, "--samples", samples
    for largest in (1, 16, 127):
        np.savez(samples, images=dark(largest), labels=labels)
        for culprit in (f"largest pixel is {largest}, not 255", "--pixels"):
            refuses(*script, culprit=culprit)
        args = SimpleNamespace(model=path, samples=samples, pixels="0..255")
        np.testing.assert_array_equal(attack_run.read(args)[1], dark(largest) / np.float32(255))
    np.savez(samples, images=dark(128), labels=labels)
    data.load_own_samples(samples)


def test_what_a_network_does_first_says_which_pixels_it_expects(tmp_path):
    """Nothing does where that is anything but one of two layers, or where images go two ways."""

    def expects(*operations):
        x = image = keras.Input((4, 4, 1))
        for operation in operations:
            x = operation(x)
        keras.Model(image, layers.Dense(2)(layers.Flatten()(x))).save(tmp_path / "n.keras")
        return keras_file.begins_with(keras_file.read(tmp_path / "n.keras"))

    unit, centred = layers.Rescaling(1 / 255), layers.Rescaling(1 / 127.5, offset=-1)
    within = keras.Sequential([unit, layers.Normalization(mean=0.5, variance=0.1)])
    augment = keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.1)])
    for first in ([unit], [centred], [within], [augment, unit], [layers.RandomFlip(), within]):
        assert expects(*first) == "0..255"
    for first in (
        [],
        [lambda x: x * 255, unit],
        [lambda x: x * 255, augment, within],
        [lambda x: unit(x) + x],
        [lambda x: augment(x) + x, unit],
        [layers.Rescaling(1, offset=-127)],
        [layers.Rescaling(2, offset=-1)],
        [layers.Normalization(mean=120.0, variance=4e3)],
        [layers.Conv2D(1, 1), unit],
    ):
        assert expects(*first) is None


def test_a_keras_with_known_holes_loads_nothing():
    for version in ("3.10.0", "3.12.3", "3.13.2"):
        with pytest.raises(Failure, match=f"mine is not loaded by Keras {version}"):
            keras_file.check_version(version, "mine")
    for version in ("3.12.4", "3.14.0", "3.15.1", "4.0.0.dev1"):
        keras_file.check_version(version, "mine")


@keras.saving.register_keras_serializable()
class UnknownToEveryOtherProcess(layers.Layer):
    """A layer of one's own."""

    def call(self, x):
        return x


def broken(kind, folder):
    """Write what is no network to attack; returns its path."""
    path = folder / "n.keras"
    flat = layers.Flatten()
    if kind == "Lambda":
        saved(path, (4, 4), flat, layers.Lambda(lambda x: 2 * x), layers.Dense(2))
    elif kind == "class":
        saved(path, (4, 4), flat, UnknownToEveryOtherProcess(), layers.Dense(2))
        keras.saving.get_custom_objects().pop("Custom>UnknownToEveryOtherProcess", None)
    elif kind == "NaN":
        saved(
            path,
            (4, 4),
            flat,
            layers.Dense(2, kernel_initializer=keras.initializers.Constant(np.nan)),
        )
    elif kind == "truncated":
        saved(path, (4, 4), flat, layers.Dense(2))
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "garbled":
        saved(path, (4, 4), flat, layers.Dense(2))
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": 3}))
    elif kind == "Keras 2":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": "2.15.0"}))
            old = {"module": "keras.src.engine.functional", "class_name": "Functional"}
            archive.writestr("config.json", json.dumps({**old, "config": {"layers": []}}))
    elif kind == "whole numbers":
        image = keras.Input((4, 4), dtype="uint8")
        keras.Model(image, layers.Dense(2)(layers.Flatten()(image))).save(path)
    elif kind == "two inputs":
        inputs = keras.Input((4,)), keras.Input((4,))
        keras.Model(inputs, layers.Add()(inputs)).save(path)
    elif kind == "text":
        path = folder / "notes.txt"
        path.write_text("no network")
    elif kind == "folder":
        path.mkdir()
    elif kind == "SavedModel":
        path = folder / "model"
        path.mkdir()
        (path / "saved_model.pb").touch()
    elif kind in ("whole .h5", "weights"):
        path = folder / ("n.h5" if kind == "whole .h5" else "n.weights.h5")
        path.touch()
    return path


BROKEN = {
    "missing": "not found",
    "folder": "is not a file",
    "text": "not a .keras file",
    "truncated": "truncated",
    "garbled": "truncated",
    "Lambda": "Lambda",
    "class": "'UnknownToEveryOtherProcess'",
    "Keras 2": "Keras 2.15.0, which is older",
    "whole numbers": "whole numbers (uint8), which have no gradient",
    "NaN": "finite",
    "two inputs": "2 inputs",
    "SavedModel": "with the TensorFlow that made it",
    "whole .h5": "convert an .h5",
    "weights": "load_weights",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", BROKEN)
def test_files_that_are_no_network_to_attack(refuses, place, kind):
    path = broken(kind, place)
    x, y = np.full((3, 4, 4), 200, np.uint8), [0, 1, 0]
    np.savez(place / "s.npz", images=x, labels=y)
    for script in ("method2_fgsm/mnist_fast_gradient", "method1_noise_optimization/attack_mnist"):
        refuses(script, "--model", path, "--samples", place / "s.npz", culprit=BROKEN[kind])


def test_samples_of_every_kind_are_the_same(tmp_path):
    x, y = squares(10)
    y = np.r_[0, 1, 2, y[3:]]
    forms = [
        {"images": x, "labels": y},
        {"x_test": x.astype(np.float64), "y_test": y[:, np.newaxis].astype(np.uint8)},
        {"images": x, "labels": np.eye(3, dtype=np.float32)[y]},
    ]
    for form in forms:
        np.savez(tmp_path / "s.npz", **form)
        images, labels, names = data.load_own_samples(tmp_path / "s.npz")
        np.testing.assert_array_equal(images, x)
        np.testing.assert_array_equal(labels, y)
        assert (images.dtype, labels.dtype, names) == (np.float32, np.int64, None)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"images": None}, "no images"),
        ({"images": np.full((4, 2, 2), 255.0)}, "divide them by 255"),
        ({"images": np.zeros((4, 2, 2), np.int64)}, "int64"),
        ({"images": np.linspace(-1, 1, 16).reshape(4, 2, 2)}, r"\[0, 1\]: give \(x \+ 1\) / 2;"),
        ({"images": np.full((4, 2, 2), np.nan)}, "images hold values that are no finite numbers"),
        ({"labels": np.arange(3)}, "not numbers of classes"),
        ({"labels": np.zeros((4, 3))}, "one-hot"),
        ({"labels": np.array(["cat", "dog", "cat", "cow"])}, "not numbers of classes"),
        ({"names": np.arange(4)}, "not text"),
    ],
)
def test_samples_that_are_none(tmp_path, change, problem):
    arrays = {"images": np.zeros((4, 2, 2)), "labels": np.arange(4)} | change
    np.savez(tmp_path / "s.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(Failure, match=problem):
        data.load_own_samples(tmp_path / "s.npz")


def test_both_scripts_attack_it_and_keep_shape_names_and_settings(mine, tmp_path, capsys):
    output = tmp_path / "results.npz"
    runs = {
        mnist_fast_gradient: ["--eps", "0.3", "--target", "left"],
        attack_mnist: ["--method", "minimal", "--starts", "1", "--limit", "20"],
    }
    for script, more in runs.items():
        assert script.main([*arguments(mine), *more, "--output", str(output)]) == [output]
        assert "mine.keras" in capsys.readouterr().out
        found = results.load(output)
        assert found["xs"].shape[1:] == (8, 6, 3)
        config = found["config"]
        assert (config["model"], config["pixels"]) == ("mine.keras", "0..255")
        assert config["names"] == ["left", "middle", "right"]
        assert config["weights"] == files.sha256(mine[0])
        model = keras_file.load(mine[0], (8, 6, 3), "0..255")[0]
        x_adv = found["xs"] + found["noises"]
        np.testing.assert_array_equal(mnist.classify(model, x_adv), found["y_preds_adversarial"])
        targets = found["y_targets"]
        assert (found["y_preds_adversarial"] == targets).mean() > 0.5
        assert (targets != found["y_trues"]).all()
    assert set(targets) == {0, 1, 2}


def test_in_half_precision_reached_is_what_the_file_itself_says(mine, tmp_path):
    """Noise of the smallest size ends at the border, where rounding would decide."""
    single, half = keras.models.load_model(mine[0]), [keras.Input((8, 6, 3))]
    for layer in single.layers:
        half.append(type(layer).from_config(layer.get_config() | {"dtype": "mixed_float16"}))
    network = keras.Sequential(half)
    network.set_weights(single.get_weights())
    network.save(tmp_path / "half.keras")
    output, options = tmp_path / "r.npz", ["--method", "minimal", "--target", "any"]
    command = ["--model", str(tmp_path / "half.keras"), "--samples", str(mine[1]), *options]
    attack_mnist.main([*command, "--output", str(output)])
    found = results.load(output)
    asked = np.asarray(network(255 * (found["xs"] + found["noises"]))).argmax(axis=1)
    np.testing.assert_array_equal(asked, found["y_preds_adversarial"])
    assert (asked != found["y_trues"]).mean() > 0.95


def test_sigmoids_that_round_to_one_are_a_tie_for_the_file_itself(tmp_path):
    network = saved(tmp_path / "n.keras", (2, 2), layers.Flatten(), layers.Dense(3, "sigmoid"))
    network.layers[-1].set_weights([np.zeros((4, 3)), np.array([20.0, 30.0, 25.0])])
    network.save(tmp_path / "n.keras")
    model, judge = keras_file.load(tmp_path / "n.keras", (2, 2), "0..1")
    x = np.zeros((2, 2, 2), np.float32)
    assert (mnist.classify(model, x) == 1).all()
    assert (mnist.classify(judge, x) == np.asarray(network(x)).argmax(axis=1)).all()


def test_its_results_are_drawn_and_checked(mine, tmp_path, capsys):
    output, figure = tmp_path / "results.npz", tmp_path / "f.png"
    runs = (
        (mnist_fast_gradient, visualize_mnist, "--eps 0.3"),
        (attack_mnist, visualize_adv_examples, "--method minimal --starts 1"),
    )
    for script, visualize, how in runs:
        script.main([*arguments(mine), *how.split(), "--output", str(output)])
        assert visualize.main([str(output), "--output", str(figure)]) == [figure]
        assert check_results.main([str(output), "--model", str(mine[0])]) == []
        assert "not recomputed" not in capsys.readouterr().out
        assert check_results.main([str(output)]) == []
        assert "not recomputed" in capsys.readouterr().out
    found = results.load(output)
    changed = np.roll(found["y_preds_adversarial"], 1)
    results.save(output, **(found | {"y_preds_adversarial": changed}))
    with pytest.raises(Failure, match="violation"):
        check_results.main([str(output), "--model", str(mine[0])])


@pytest.fixture
def short(monkeypatch):
    for name, value in {"STEPS": 5, "SMALLEST_STEPS": 10, "QUERIES": 30, "DRAWS": 3}.items():
        monkeypatch.setattr(ensemble, name, value)
    monkeypatch.setattr(robustness, "FEW", 20)


@pytest.fixture(scope="module")
def mlp(trained, tmp_path_factory):
    """(file, samples): our MLP as a stranger's, for pixels up to 255, with a softmax."""
    folder = tmp_path_factory.mktemp("mlp")
    image = keras.Input((28, 28, 1))
    z = trained["mlp"](layers.Rescaling(1 / 255)(layers.Reshape((28, 28))(image)))
    keras.Model(image, layers.Softmax()(z)).save(folder / "mlp.keras")
    x, y = (part[:50] for part in data.load("test"))
    np.savez(folder / "mlp.npz", images=x, labels=y)
    return folder / "mlp.keras", folder / "mlp.npz"


def test_our_cnn_can_be_saved_and_read_as_a_file(trained, digits, tmp_path):
    """Its first convolution is a layer of our own."""
    trained["cnn"].save(tmp_path / "cnn.keras")
    model, x = keras_file.load(tmp_path / "cnn.keras", (28, 28), "0..1")[0], digits[0][:5]
    np.testing.assert_array_equal(mnist.predict(model, x), mnist.predict(trained["cnn"], x))


def test_the_same_network_as_a_file_gives_the_same_results(mlp, tmp_path):
    found = []
    for model in ("mlp", str(mlp[0])):
        output = tmp_path / "r.npz"
        options = ["--samples", str(mlp[1]), "--output", str(output)]
        mnist_fast_gradient.main(["--model", model, *options])
        found.append(results.load(output))
    for name in ("xs", "y_trues", "y_preds_adversarial"):
        np.testing.assert_array_equal(found[0][name], found[1][name])
    differs = np.abs(found[0]["noises"] - found[1]["noises"]) > 1e-6
    assert differs.mean() < 1e-3  # where a gradient nearly vanishes, rounding decides its sign


def test_the_report_card_of_a_file_is_that_of_the_same_network(
    mlp, place, short, monkeypatch, trained
):
    monkeypatch.setattr(mnist, "load", lambda name, path=None: trained[name])
    found = {}
    for model in ("mlp", str(mlp[0])):
        options = ["--model", model, "--eps", "0.05", "--count", "50"]
        figure, report = robustness.main(options)
        assert figure.read_bytes()[1:4] == b"PNG"
        found[figure.name] = json.loads(report.read_text())
    ours, theirs = found["robustness_mlp.png"], found["robustness_mlp.keras.png"]
    assert set(ours["rows"]) - set(theirs["rows"]) == {
        "sign step, transferred",
        "projected steps, transferred",
    }
    for name, row in theirs["rows"].items():
        assert abs(row["count"] - ours["rows"][name]["count"]) <= 1, name
        low, high = row["interval"]
        assert low <= row["share"] <= high
    assert 0 < theirs["rows"]["all together"]["count"] < theirs["rows"]["no attack"]["count"]
    for median in ("smallest epsilon, median", "smallest |r|_2, median"):
        assert theirs[median] == pytest.approx(ours[median], rel=0.02)
    for name, curve in theirs["curves"].items():
        np.testing.assert_allclose(curve, ours["curves"][name], atol=0.051)


def test_the_interval_holds_what_a_binomial_count_makes_likely():
    """Clopper & Pearson: at either end a count as far away has a chance of 2.5 %."""
    hits = np.arange(40) < 7
    low, high = robustness.share(hits)["interval"]
    draws = np.random.default_rng(0)
    assert (draws.binomial(40, low, 200000) >= 7).mean() == pytest.approx(0.025, abs=0.002)
    assert (draws.binomial(40, high, 200000) <= 7).mean() == pytest.approx(0.025, abs=0.002)


def test_a_report_card_in_colour_with_names(mine, short, place, capsys):
    written = robustness.main([*arguments(mine), "--count", "20"])
    assert written == [files.IMG / f"robustness_mine.keras.{kind}" for kind in ("png", "json")]
    assert json.loads(written[1].read_text())["eps"] == 8 / 255
    assert "transferred" not in capsys.readouterr().out


def test_a_network_that_is_always_wrong_has_no_report_card(mine, refuses, place):
    x, y, _ = data.load_own_samples(mine[1])
    np.savez(place / "s.npz", images=x, labels=(y + 1) % 3)
    # (Not `refuses`: a second line is the warning that this is no better than chance.)
    with pytest.raises(Failure, match="misclassifies all"):
        robustness.main(
            ["--model", str(mine[0]), "--samples", str(place / "s.npz"), "--pixels", "0..255"]
        )


def test_a_slope_that_is_not_finite_and_a_lack_of_memory_are_one_line(refuses, place, monkeypatch):
    """sqrt has no slope at 0: two images of forty are black."""
    image = keras.Input((4, 4))
    z = layers.Dense(2)(layers.Flatten()(keras.ops.sqrt(image)))
    keras.Model(image, z).save(place / "n.keras")
    x = np.random.default_rng(0).uniform(0.2, 0.8, (40, 4, 4)).astype(np.float32)
    x[[1, 4]] = 0
    y = mnist.classify(keras_file.load(place / "n.keras", (4, 4), "0..1")[0], x)
    np.savez(place / "s.npz", images=x, labels=y)
    own = "--model", place / "n.keras", "--samples", place / "s.npz", "--pixels", "0..1"
    fast, found = "method2_fgsm/mnist_fast_gradient", "not finite numbers for 2 of 40 images"
    for script in (fast, "method2_fgsm/robustness", "method1_noise_optimization/compare_methods"):
        refuses(script, *own, culprit=found)
    error = tf.errors.ResourceExhaustedError(None, None, "OOM")
    monkeypatch.setattr(fgsm, "fgsm", Mock(side_effect=error))
    refuses(fast, *own, culprit="out of memory")


def test_targets_and_samples_that_do_not_fit(mine, refuses, place):
    script = "method2_fgsm/mnist_fast_gradient"
    for target in ("3", "up", "-1"):
        refuses(script, *arguments(mine), f"--target={target}", culprit="index from 0 to 2")
    np.savez(place / "grey.npz", images=np.zeros((3, 8, 6)), labels=[0, 1, 2])
    refuses(script, "--model", mine[0], "--samples", place / "grey.npz", culprit="takes images")
    refuses(
        "method1_noise_optimization/distances",
        "--model",
        mine[0],
        culprit="robustness.py",
        code=(2,),
    )
    # Of the classes of a file the second has 6, not 2 as the digits have.
    pair = "method2_fgsm/two_to_six", *arguments(mine), "--source", "left", "--target"
    refuses(*pair, "6", culprit="--target '6' is not a class")
    refuses(*pair, "left", culprit="choose two", code=(2,))
    refuses(*pair, "0", culprit="both class 0: choose two")


def test_the_scripts_that_draw_digits_draw_its_classes(mine, place, capsys, monkeypatch):
    """Every image reaches its target by its own smallest epsilon, and the names are said."""
    monkeypatch.setattr(every_pair, "STEPS", 40)
    monkeypatch.setitem(compare_methods.WAYS["many steps, smallest ε"], "steps", 40)
    pair = ["--source", "left", "--target", "right", "--count", "4"]
    runs = {
        epsilon: (pair, "epsilon_mine.keras_left_to_right_mine.png"),
        two_to_six: (pair, "lefts_as_rights_mine.keras_mine.png"),
        every_pair: (["--count", "2", "--norm", "linf"], "noise_every_pair_linf_mine.keras.png"),
        compare_methods: (["--limit", "6"], "noise_methods_mine.keras.png"),
    }
    printed = {}
    for script, (more, name) in runs.items():
        assert script.main([*arguments(mine), *more]) == [files.IMG / name]
        printed[script] = capsys.readouterr().out
        assert "pixels 0..255" in printed[script]
    assert "correctly classified images of left into a right" in printed[epsilon]
    assert re.findall(r"(\w+)$", printed[two_to_six], re.M).count("right") >= 4
    smallest = [re.findall(r"^ +\d+ +(\d\.\d{4})", printed[s], re.M) for s in (epsilon, two_to_six)]
    assert len(smallest[0]) == len(smallest[1]) == 4
    assert "100.00% of 12" in printed[every_pair]
    assert printed[compare_methods].count("100.0%") >= len(compare_methods.WAYS)


def test_classes_may_be_called_anything(mine, place):
    with np.load(mine[1]) as stored:
        names = ["T-shirt/top", "$1 to $5", "$5_$10"]
        np.savez(place / "s.npz", **{**stored, "names": names})
    own = ["--model", str(mine[0]), "--samples", str(place / "s.npz"), "--count", "2"]
    pair = ["--source", "t-shirt/TOP", "--target", "$5_$10"]
    for script, name in (
        (two_to_six, "t_shirt_TOPs_as__5__10s_mine.keras_s.png"),
        (epsilon, "epsilon_mine.keras_t_shirt_TOP_to__5__10_s.png"),
    ):
        assert script.main([*own, *pair]) == [files.IMG / name]
        assert (files.IMG / name).exists()


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch, short, place, capsys):
    """From its code to the report card: as the README shows it."""
    text = (files.COMMON / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## Your own network\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    line = re.search(r"    (python method2_fgsm/robustness\.py .*)", section)[1]
    robustness.main([*line.split()[2:], "--count", "40"])
    out = capsys.readouterr().out
    assert "pixels 0..255 (" in out
    assert "without the softmax or sigmoids at its end" in out


def test_a_file_is_read_once_and_another_in_its_place_is_not_the_network(mine, monkeypatch):
    x, y, names = data.load_own_samples(mine[1])
    network = own_model.open_network(mine[0], x, y, names=names)
    monkeypatch.setattr(keras_file, "read", lambda path: pytest.fail("read again"))
    assert own_model.load(network)[0].output_shape == (None, 3)
    with pytest.raises(Failure, match="another file"):
        own_model.load(network._replace(sha256="0" * 64))
