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
from common.networks import imagenet, keras_file, mnist, own_model
from method1_noise_optimization import attack_mnist, every_pair, visualize_adv_examples
from method2_fgsm import epsilon, fgsm, mnist_fast_gradient, robustness, two_to_six, visualize_mnist
from method2_fgsm.robust import ensemble

NAMES = ["left", "T-shirt/top", "$5_$10"]


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


def thirds(path, scale, *first, end=None, **settings):
    """Write a network whose logits are the brightness of the three thirds times `scale`.

    Without a bias it says the same whatever all pixels are multiplied by.
    """
    last = layers.Dense(3, use_bias=False, activation=end, **settings)
    network = saved(path, (8, 6, 3), *first, layers.Flatten(), last)
    third = np.eye(3).repeat(2, axis=0)[:, np.newaxis]
    last.set_weights([scale * np.broadcast_to(third, (8, 6, 3, 3)).reshape(144, 3)])
    network.save(path)
    return path


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """(file, samples): a linear network for pixels up to 255, with a softmax at its end."""
    folder = tmp_path_factory.mktemp("mine")
    path = thirds(folder / "mine.keras", 0.3, layers.Rescaling(1 / 255), end="softmax")
    x, y = squares(60, 1)
    images = np.round(255 * x).astype(np.uint8)
    np.savez(folder / "mine.npz", images=images, labels=y, names=NAMES)
    return path, folder / "mine.npz"


def arguments(mine):
    return ["--model", str(mine[0]), "--samples", str(mine[1])]


# What a network becomes ---------------------------------------------------------------------------


def test_images_go_in_as_the_network_declares_them(tmp_path):
    for takes, given in (((6, 5, 1), (6, 5)), ((6, 5), (6, 5, 1)), ((90,), (6, 5, 3))):
        stack = layers.Flatten(), layers.Dense(4, activation="softmax")
        network = saved(tmp_path / "n.keras", takes, *stack)
        x = np.random.default_rng(0).random((5, *given), np.float32)
        model = keras_file.load(tmp_path / "n.keras", given, "0..1")[0]
        expected = network(x.reshape(5, *takes)).numpy()
        np.testing.assert_allclose(mnist.softmax(model(x).numpy()), expected, rtol=1e-5)


def test_our_own_cnn_as_a_file_is_the_same_network(trained, digits, tmp_path):
    trained["cnn"].save(tmp_path / "cnn.keras")
    for model in keras_file.load(tmp_path / "cnn.keras", (28, 28), "0..1"):
        logits = (mnist.predict(network, digits[0][:20]) for network in (model, trained["cnn"]))
        np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-5)


def test_one_sigmoid_becomes_two_logits_and_three_lose_theirs(tmp_path):
    x, path = np.random.default_rng(0).random((7, 4, 4), np.float32), tmp_path / "n.keras"
    for ending in ([layers.Dense(1, "sigmoid")], [layers.Dense(1), layers.Activation("sigmoid")]):
        keras.utils.clear_session()  # layers made from here on have the names of those in the file
        network = saved(path, (4, 4), layers.Flatten(), *ending)
        keras.utils.clear_session()
        z = keras_file.load(path, (4, 4), "0..1")[0](x).numpy()
        assert not z[:, 0].any()
        np.testing.assert_allclose(mnist.softmax(z)[:, 1:], network(x), rtol=1e-5)
    network = saved(path, (16,), layers.Dense(3, "sigmoid"))
    network.layers[-1].bias.assign([20.0, 30.0, 25.0])
    network.save(path)
    model, judge = keras_file.load(path, (4, 4), "0..1")
    # Of what rounds to one in the file, the file itself says the first.
    assert (mnist.classify(model, x) == 1).all()
    assert (mnist.classify(judge, x) == 0).all()
    sigmoids = 1 / (1 + np.exp(-mnist.predict(model, x)))
    np.testing.assert_allclose(sigmoids, network(x.reshape(7, 16)), rtol=1e-5)


def test_what_a_network_does_first_says_which_pixels_it_expects(tmp_path):
    """Nothing does where that is anything but one of two layers, or where images go two ways."""

    def expects(*operations):
        x = image = keras.Input((4, 4, 1))
        for operation in operations:
            x = operation(x)
        keras.Model(image, layers.Dense(2)(layers.Flatten()(x))).save(tmp_path / "n.keras")
        return imagenet.begins_with(keras_file.read(tmp_path / "n.keras"))

    unit, centred = layers.Rescaling(1 / 255), layers.Rescaling(1 / 127.5, offset=-1)
    within = keras.Sequential([unit, layers.Normalization(mean=0.5, variance=0.1)])
    augment = keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.1)])
    for first in ([unit], [centred], [augment, unit], [layers.RandomFlip(), within]):
        assert expects(*first) == "0..255"
    doubtful = layers.Rescaling(1, offset=-127), layers.Conv2D(1, 1), lambda x: augment(x) + x
    for first in ([], *([layer, unit] for layer in doubtful)):
        assert expects(*first) is None


def test_the_pixels_are_found_on_the_samples(mine, capsys):
    x, y, names = data.load_own_samples(mine[1])
    found = own_model.open_network(mine[0], x, y, names=names)
    assert (found.pixels, found.classes, found.shape) == ("0..255", 3, (8, 6, 3))
    said, warned = capsys.readouterr()
    assert "pixels 0..255" in said
    assert "without the softmax or sigmoids at its end" in said
    assert not warned
    with pytest.raises(Failure, match="another file"):
        own_model.load(found._replace(sha256="0" * 64))
    own_model.open_network(mine[0], x, (y + 1) % 3, names=names)  # another order of the classes
    assert "chance" in capsys.readouterr().err
    with pytest.raises(Failure, match="a label 3"):
        own_model.open_network(mine[0], x, y + 1, names=names)
    with pytest.raises(Failure, match="2 names"):
        own_model.open_network(mine[0], x, y, names=names[:2])


@pytest.mark.parametrize(
    ("scale", "pixels", "end"),
    [(0.3, "0..1", None), (0.3 / 255, "0..255", "softmax"), (0.3, "0..1", "sigmoid")],
)
def test_among_pixels_that_do_as_well_the_lowest_cross_entropy_decides(
    tmp_path, capsys, scale, pixels, end
):
    """A network is too sure of larger pixels than it learned on, and too unsure of smaller ones."""
    x, y = squares(200)
    z = 0.3 * x.astype(np.float64).reshape(200, 8, 3, 2, 3).sum(axis=(1, 3, 4))
    y[:4] = (y[:4] + 1) % 3
    loss = np.log(np.exp(z).sum(axis=1)) - z[range(200), y]
    found = own_model.open_network(thirds(tmp_path / "n.keras", scale, end=end), x, y)
    said, warned = capsys.readouterr()
    assert found.pixels == pixels
    assert "(98.0% right" in said
    assert float(re.search(r"entropy ([\d.]+)", said)[1]) == pytest.approx(loss.mean(), abs=0.01)
    assert not warned


def test_where_two_kinds_of_pixels_do_as_well_it_is_said(tmp_path, capsys):
    path = thirds(tmp_path / "n.keras", 9, layers.Flatten(), layers.UnitNormalization())
    own_model.open_network(path, *squares(50))
    error = capsys.readouterr().err
    assert re.search(r"as good with pixels 0\.\.\S+ and 0\.\.\S+: say which with --pixels", error)


def test_the_samples_may_be_sorted_by_class(mine, tmp_path, capsys, monkeypatch):
    x, y = squares(300)
    order = np.argsort(y)
    x, y = x[order], y[order]
    np.savez(tmp_path / "s.npz", images=x, labels=y)
    monkeypatch.setattr(own_model, "TRIED", 60)
    y_wrong = np.where(y == 0, 1, y)  # in one class of three
    own_model.open_network(mine[0], x, y_wrong, pixels="0..255")
    assert not capsys.readouterr().err
    args = SimpleNamespace(model=mine[0], samples=tmp_path / "s.npz", pixels="0..255", seed=3)
    _, _, _, images, labels, _ = own_model.opened(args, 30)
    places = np.sort(np.random.default_rng(3).choice(300, 30, replace=False))
    np.testing.assert_array_equal(images, x[places])
    np.testing.assert_array_equal(labels, y[places])


# What is no network, and what are no samples ------------------------------------------------------


def test_a_keras_with_known_holes_loads_nothing():
    for version in ("3.10.0", "3.12.3", "3.13.2"):
        with pytest.raises(Failure, match=f"mine is not loaded by Keras {version}"):
            keras_file.check_version(version, "mine")
    for version in ("3.12.4", "3.14.0", "3.15.1", "4.0.0.dev1"):
        keras_file.check_version(version, "mine")


@pytest.mark.filterwarnings("ignore")
def test_files_that_are_no_network_to_attack(mine, refuses, place):
    path, weights = place / "n.keras", place / "n.weights.h5"

    def is_refused(culprit, path=path):
        own = "--model", path, "--samples", mine[1]
        refuses("method2_fgsm/mnist_fast_gradient", *own, culprit=culprit)

    is_refused("not found")
    weights.write_text("no network")
    is_refused("load_weights", weights)
    path.write_bytes(mine[0].read_bytes()[:-200])
    is_refused("truncated")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.15.0"}))
        old = {"module": "keras.src.engine.functional", "class_name": "Functional"}
        archive.writestr("config.json", json.dumps({**old, "config": {"layers": []}}))
    is_refused("of another Keras")
    inputs = keras.Input((4,)), keras.Input((4,))
    keras.Model(inputs, layers.Add()(inputs)).save(path)
    is_refused("2 inputs")
    saved(path, (4,), layers.Dense(2, kernel_initializer=keras.initializers.Constant(np.nan)))
    is_refused("finite")
    saved(path, (4,), layers.Lambda(lambda x: 2 * x), layers.Dense(2))
    is_refused("Lambda")


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


def test_samples_that_are_none(tmp_path):
    right = {"images": np.zeros((4, 2, 2)), "labels": np.arange(4)}
    dim, names = np.full((4, 2, 2), 16, np.uint8), np.array(["cat", "dog", "cat", "cow"])
    for arrays, problem in (
        ({"labels": np.arange(4)}, "no images"),
        (right | {"images": dim}, "largest pixel is 16, not 255.*--pixels"),
        (right | {"labels": np.zeros((4, 3))}, "one-hot"),
        (right | {"labels": names}, "not numbers of classes from 0 for 4 images"),
        (right | {"names": np.arange(4)}, "not text"),
    ):
        np.savez(tmp_path / "s.npz", **arrays)
        with pytest.raises(Failure, match=problem):
            data.load_own_samples(tmp_path / "s.npz")


def test_a_lack_of_memory_is_one_line(mine, refuses, monkeypatch):
    error = tf.errors.ResourceExhaustedError(None, None, "OOM")
    monkeypatch.setattr(fgsm, "fgsm", Mock(side_effect=error))
    refuses("method2_fgsm/mnist_fast_gradient", *arguments(mine), culprit="out of memory")


def test_targets_and_samples_that_do_not_fit(mine, refuses, place):
    script = "method2_fgsm/mnist_fast_gradient"
    refuses(script, *arguments(mine), "--target=3", culprit="index from 0 to 2")
    np.savez(place / "grey.npz", images=np.zeros((3, 8, 6)), labels=[0, 1, 2])
    refuses(script, "--model", mine[0], "--samples", place / "grey.npz", culprit="takes images")
    distances = "method1_noise_optimization/distances", "--model", mine[0]
    refuses(*distances, culprit="robustness.py", code=(2,))
    pair = "method2_fgsm/two_to_six", *arguments(mine), "--source", "left", "--target"
    refuses(*pair, "6", culprit="--target '6' is not a class")
    refuses(*pair, "0", culprit="both class 0: choose two")


# The scripts --------------------------------------------------------------------------------------


def test_both_scripts_attack_it_and_their_results_are_drawn_and_checked(mine, tmp_path, capsys):
    output, figure = tmp_path / "results.npz", tmp_path / "f.png"
    runs = (
        (mnist_fast_gradient, visualize_mnist, "--eps 0.3 --target LEFT"),
        (attack_mnist, visualize_adv_examples, "--method minimal --starts 1 --limit 20"),
    )
    model = keras_file.load(mine[0], (8, 6, 3), "0..255")[0]
    for script, visualize, how in runs:
        assert script.main([*arguments(mine), *how.split(), "--output", str(output)]) == [output]
        found = results.load(output)
        config = found["config"]
        assert (config["model"], config["pixels"]) == ("mine.keras", "0..255")
        assert (config["names"], config["weights"]) == (NAMES, files.sha256(mine[0]))
        said = mnist.classify(model, found["xs"] + found["noises"])
        np.testing.assert_array_equal(said, found["y_preds_adversarial"])
        assert (said == found["y_targets"]).all()
        assert visualize.main([str(output), "--output", str(figure)]) == [figure]
        capsys.readouterr()
        assert check_results.main([str(output), "--model", str(mine[0])]) == []
        assert check_results.main([str(output)]) == []
        assert capsys.readouterr().out.count("whose predictions are not recomputed") == 1
    results.save(output, **(found | {"y_preds_adversarial": np.roll(said, 1)}))
    with pytest.raises(Failure, match="violation"):
        check_results.main([str(output), "--model", str(mine[0])])


def test_in_half_precision_reached_is_what_the_file_itself_says(mine, tmp_path):
    """Noise of the smallest size ends at the border, where rounding would decide."""
    half = tmp_path / "half.keras"
    first = layers.Rescaling(1, dtype="mixed_float16")
    thirds(half, 0.3 / 255, first, end="softmax", dtype="mixed_float16")
    output = tmp_path / "r.npz"
    options = ["--method", "minimal", "--starts", "1", "--target", "any", "--limit", "30"]
    attack_mnist.main([*arguments((half, mine[1])), *options, "--output", str(output)])
    found = results.load(output)
    network = keras.models.load_model(half)
    asked = np.asarray(network(255 * (found["xs"] + found["noises"]))).argmax(axis=1)
    np.testing.assert_array_equal(asked, found["y_preds_adversarial"])
    assert (asked != found["y_trues"]).mean() > 0.95


@pytest.mark.slow
def test_a_report_card_in_colour_with_names(mine, place, capsys, monkeypatch):
    for name, value in {"STEPS": 5, "SMALLEST_STEPS": 10, "QUERIES": 30, "DRAWS": 3}.items():
        monkeypatch.setattr(ensemble, name, value)
    written = robustness.main([*arguments(mine), "--count", "20"])
    assert written == [files.IMG / f"robustness_mine.keras.{kind}" for kind in ("png", "json")]
    assert json.loads(written[1].read_text())["eps"] == 8 / 255
    assert "transferred" not in capsys.readouterr().out


def test_the_interval_holds_what_a_binomial_count_makes_likely():
    """Clopper & Pearson: at either end a count as far away has a chance of 2.5 %."""
    hits = np.arange(40) < 7
    low, high = robustness.share(hits)["interval"]
    draws = np.random.default_rng(0)
    assert (draws.binomial(40, low, 200000) >= 7).mean() == pytest.approx(0.025, abs=0.002)
    assert (draws.binomial(40, high, 200000) <= 7).mean() == pytest.approx(0.025, abs=0.002)


@pytest.mark.slow
def test_the_scripts_that_draw_digits_draw_its_classes(mine, place, capsys, monkeypatch):
    """Every image reaches its target by its own smallest epsilon, and the names are said."""
    monkeypatch.setattr(every_pair, "STEPS", 40)
    pair = ["--source", "t-shirt/TOP", "--target", "$5_$10", "--count", "4"]
    runs = {
        epsilon: (pair, "epsilon_mine.keras_t_shirt_TOP_to__5__10_mine.png"),
        two_to_six: (pair, "t_shirt_TOPs_as__5__10s_mine.keras_mine.png"),
        every_pair: (["--count", "2", "--norm", "linf"], "noise_every_pair_linf_mine.keras.png"),
    }
    printed = {}
    for script, (more, name) in runs.items():
        assert script.main([*arguments(mine), *more]) == [files.IMG / name]
        assert (files.IMG / name).exists()
        printed[script] = capsys.readouterr().out
        assert "pixels 0..255" in printed[script]
    assert "correctly classified images of T-shirt/top into a $5_$10" in printed[epsilon]
    smallest = [re.findall(r"^ +\d+ +(\d\.\d{4})", printed[s], re.M) for s in (epsilon, two_to_six)]
    assert len(smallest[0]) == len(smallest[1]) == 4
    assert "100.00% of 12" in printed[every_pair]


def test_the_example_of_the_readme_makes_a_network_and_its_samples(tmp_path, monkeypatch, capsys):
    text = (files.COMMON / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## Your own network\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    x, y, names = data.load_own_samples(tmp_path / "mine.npz")
    own_model.open_network(tmp_path / "mine.keras", x, y, names=names)
    out = capsys.readouterr().out
    assert "32 x 32 x 3, 3 classes, pixels 0..255 (" in out
    assert "without the softmax or sigmoids at its end" in out
