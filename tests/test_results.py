"""The digits, samples of them, and result files: what is saved comes back, and what is wrong is
named."""

import contextlib
import json
import re
import zipfile

import numpy as np
import pytest

from common import check_results, data, files, generate_5k, results
from common.command import Failure
from common.networks import mnist
from method2_fgsm import mnist_fast_gradient


def test_the_digits_are_mnist(digits):
    x, y = digits
    assert x.shape == (10000, 28, 28)
    assert x.dtype == np.float32
    assert x.min() == 0
    assert x.max() == 1
    # The test set's published counts of each digit.
    assert np.bincount(y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    x, y = data.load("train")
    assert x.shape == (60000, 28, 28)
    # The training set's often quoted mean and standard deviation.
    assert x.mean(dtype=np.float64) == pytest.approx(0.1307, abs=1e-4)
    assert x.std(dtype=np.float64) == pytest.approx(0.3081, abs=1e-4)


def others(path):
    """A file such as ours, with other digits."""
    empty = {"x_test": np.zeros((10000, 28, 28), np.uint8), "y_test": np.zeros(10000, np.uint8)}
    np.savez(path, **empty)


def flip_a_bit(path):
    content = bytearray(data.PATH.read_bytes())
    with zipfile.ZipFile(data.PATH) as archive:
        content[archive.getinfo("x_test.npy").header_offset + 100_000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("make", "message"), [(flip_a_bit, "truncated"), (others, "altered")])
def test_other_digits_are_refused(tmp_path, make, message):
    make(tmp_path / "mnist.npz")
    with pytest.raises(Failure, match=rf"mnist\.npz.*{message}.*git checkout"):
        data.load("test", tmp_path / "mnist.npz")


def test_samples_are_distinct_test_digits(tmp_path, digits):
    output = tmp_path / "s.npz"
    generate_5k.main(["--output", str(output)])
    images, labels, indices = data.load_samples(output)
    assert images.shape == (5000, 28, 28)
    assert len(set(indices.tolist())) == 5000
    np.testing.assert_array_equal(images, digits[0][indices])
    np.testing.assert_array_equal(labels, digits[1][indices])
    with pytest.raises(Failure, match="10001"):
        data.draw_samples(10001, 0)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("labels", np.array([1, 2, 10]), "labels are not all from 0 to 9"),
        ("images", np.zeros((3, 27, 28)), r"images are .*, not \(n, 28, 28\)"),
        ("images", np.ones((3, 28, 28), np.uint8), "the largest pixel is 1, not 255"),
    ],
)
def test_other_samples_are_refused(tmp_path, name, array, message):
    arrays = {"images": np.zeros((3, 28, 28), np.float32), "labels": np.array([1, 2, 3])}
    np.savez(tmp_path / "s.npz", **arrays | {"indices": np.array([5, 6, 7])} | {name: array})
    with pytest.raises(Failure, match=rf"s\.npz: {message}.*python common/generate_5k\.py"):
        data.load_samples(tmp_path / "s.npz")


def test_samples_of_ones_own_may_be_bytes_without_indices_and_white_paper_is_warned_of(
    tmp_path, digits, capsys
):
    x, y = digits[0][:5], digits[1][:5]
    whole = (x * 255).round().astype(np.uint8)
    np.savez(tmp_path / "s.npz", images=whole, labels=y.astype(np.uint8))
    images, labels, indices = data.load_samples(tmp_path / "s.npz", limit=4)
    np.testing.assert_array_equal(images, x[:4])
    np.testing.assert_array_equal(labels, y[:4])
    assert (images.dtype, labels.dtype, indices) == (np.float32, np.int64, None)
    assert capsys.readouterr().err == ""
    whole[:2] = 255 - whole[:2]
    np.savez(tmp_path / "s.npz", images=whole, labels=y)
    np.testing.assert_allclose(data.load_samples(tmp_path / "s.npz")[0][:2], 1 - x[:2], atol=1e-6)
    assert "2 of 5 images are bright" in capsys.readouterr().err


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    """Also one whose name is as long as the system takes."""
    path = tmp_path / ("n" * 255)
    path.write_text("old")
    with contextlib.suppress(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert [(path, path.read_text())] == [(each, "old") for each in tmp_path.iterdir()]


# Results -----------------------------------------------------------------------------------------


def save(path, n=3, **changes):
    rng = np.random.default_rng(0)
    arrays = {"xs": rng.random((n, 28, 28), np.float32)}
    arrays["noises"] = rng.random((n, 28, 28), np.float32) - arrays["xs"]
    arrays |= {"y_trues": np.arange(n), "y_preds": np.arange(n)}
    arrays |= {"y_preds_adversarial": np.arange(n)[::-1]} | changes
    results.save(path, config={"model": "mlp", "seed": 0}, **arrays)
    return arrays


def test_what_is_saved_comes_back_and_the_bytes_repeat(tmp_path):
    extra = {"y_targets": [1, 2, 3], "indices": [7, 70, 700], "iterations": np.array([1, 5, 9])}
    for name in ("a.npz", "b.npz"):
        arrays = save(tmp_path / name, **extra)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = results.load(tmp_path / "a.npz")
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert loaded["xs"].dtype == loaded["noises"].dtype == np.float32
    assert loaded["y_targets"].dtype == np.int64
    assert loaded["config"]["model"] == "mlp"
    assert loaded["config"]["versions"]["numpy"] == np.__version__
    # No images at all are results too.
    save(tmp_path / "r.npz", 0)
    assert results.load(tmp_path / "r.npz")["xs"].shape == (0, 28, 28)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("noises", np.zeros((2, 28, 28), np.float32)),
        ("noises", np.full((3, 28, 28), 2, np.float32)),
        ("y_targets", [-1, 2, 3]),
        ("name", np.array(["a", "b", "c"])),
    ],
)
def test_arrays_that_do_not_belong_together_are_not_saved(tmp_path, name, array):
    with pytest.raises(ValueError, match=name):
        save(tmp_path / "r.npz", **{name: array})
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def honest(tmp_path_factory, digits):
    """What the attack on 200 digits leaves, with the config as a dict; targets and signs."""
    folder = tmp_path_factory.mktemp("honest")
    samples, output = str(folder / "samples.npz"), str(folder / "results.npz")
    x, y = digits[0].reshape(-1, 784), digits[1]
    means = np.stack([x[y == digit].mean(axis=0) for digit in range(10)])
    model = mnist.build("softmax")  # the label is that of the nearest mean
    model.set_weights([means.T, -(means**2).sum(axis=1) / 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "WEIGHTS", folder)
        model.save_weights(mnist.weights_path("softmax"))
        generate_5k.main(["--count", "200", "--output", samples])
        arguments = ("--model", "softmax", "--eps", "0.1", "--samples", samples)
        mnist_fast_gradient.main([*arguments, "--output", output])
        found = results.load(output)
        # Where a step was clipped away, it led out of the box.
        signs = np.sign(found["noises"]) + (found["noises"] == 0) * np.where(found["xs"], 1, -1)
        targets = (found["y_trues"] + 1) % 10
        yield found | {"y_targets": targets, "signs": signs.astype(np.float32)}


@pytest.fixture
def checked(tmp_path, capsys):
    """A function: what the checker prints of arrays, and whether it says PASS."""

    def check(found):
        # Past the checks that `results.save` makes.
        np.savez(tmp_path / "r.npz", **found | {"config": np.array(json.dumps(found["config"]))})
        with contextlib.suppress(Failure):
            check_results.main([str(tmp_path / "r.npz")])
        *printed, last = capsys.readouterr().out.splitlines()
        return "\n".join(printed), last == "PASS"

    return check


# An array, a row, what is written there, and what the checker has to say about that row.
ROWS = (
    ("noises", (5, 0, 0), lambda _: 0.3, "noise larger than eps 0.1"),
    ("noises", 4, lambda noise: noise / 2, "noises are not the sign step"),
    ("signs", (3, 0, 0), lambda _: 0.5, "signs other than"),
    ("xs", (6, 0, 0), lambda _: 0.5, "xs is not the image that indices names"),
    ("indices", 7, lambda _: 10000, "indices beyond the 10000 test digits"),
    ("y_trues", 8, lambda y: (y + 2) % 10, "y_trues is not MNIST's label"),
    ("y_preds", 9, lambda y: (y + 1) % 10, "misclassified before the attack"),
    ("y_preds_adversarial", 10, lambda y: (y + 5) % 10, "does not say y_preds_adversarial"),
    ("y_preds_adversarial", 11, lambda _: 10, "does not say y_preds_adversarial"),
    ("y_targets", 12, lambda y: (y - 1) % 10, "the target is the label"),
)


@pytest.mark.parametrize(("name", "where", "change", "message"), ROWS)
def test_an_altered_row_is_named(honest, checked, name, where, change, message):
    array = honest[name].copy()
    array[where] = change(array[where])
    printed, passed = checked(honest | {name: array})
    assert not passed
    row = where if isinstance(where, int) else where[0]
    found = f"{message}.* in 1 of {len(array)} rows, first in row {row}$"
    assert re.search(found, printed, re.MULTILINE)


def test_what_is_stated_or_repeated_wrongly_is_named(honest, checked):
    twice = {name: np.append(a, a[:1], axis=0) for name, a in honest.items() if name != "config"}
    for changes, message in (
        (twice, "an image that was there before"),
        ({"config": honest["config"] | {"eps": -1}}, "eps -1 is no size"),
        ({"config": honest["config"] | {"target": 3}}, "y_targets is not 3"),
    ):
        printed, passed = checked(honest | changes)
        assert not passed
        assert message in printed


def test_other_weights_do_not_confirm_the_predictions(honest, checked, tmp_path, monkeypatch):
    printed, passed = checked(honest)
    assert passed
    assert "not recomputed" not in printed
    monkeypatch.setattr(files, "WEIGHTS", tmp_path)
    mnist.build("softmax").save_weights(mnist.weights_path("softmax"))
    printed, passed = checked(honest)
    assert not passed
    assert "does not say y_preds " in printed


def test_a_tie_may_go_either_way_and_is_a_share_of_the_largest_output(honest):
    """Minimal noise ends where two classes are level, and there rounding decides."""
    few = {k: v[:3] if k != "config" else v for k, v in honest.items()}
    model = mnist.build("softmax")
    for largest, lead, violations in ((1, 5e-5, 0), (1, 3e-4, 2), (1000, 5e-5, 0), (1000, 3e-4, 2)):
        logits = largest * np.where(np.arange(10), 1 - lead, 1)
        model.set_weights([np.zeros((784, 10)), logits])
        assert len(check_results.violations(few, model)) == violations


def test_photographs_are_checked_but_for_their_predictions(checked):
    xs = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    signs = np.where(xs > 0.3, np.float32(1), np.float32(-1))
    noises = np.clip(xs + np.float32(0.02) * signs, 0, 1) - xs
    found = dict.fromkeys(results.LABELS, np.array([388, 12]))
    found |= {"xs": xs, "noises": noises, "signs": signs}
    printed, passed = checked(found | {"config": {"model": "vgg16", "eps": 0.02, "target": None}})
    assert passed
    assert "2 images, attacks on vgg16, whose predictions are not recomputed" in printed


@pytest.mark.parametrize(
    ("shape", "config", "named"),
    [
        ((28, 28), {"model": "mlp"}, "mine.keras"),
        ((8, 8), {"model": "a.keras", "pixels": "0..1"}, "mlp"),
        ((8, 8, 3), {"model": "vgg16"}, "mlp"),
    ],
)
def test_a_network_that_is_asked_for_and_not_looked_at_is_an_error(tmp_path, shape, config, named):
    path, images = tmp_path / "r.npz", np.zeros((1, *shape), np.float32)
    labels = dict.fromkeys(results.LABELS, np.array([0]))
    results.save(path, xs=images, noises=images, **labels, config=config)
    with pytest.raises(Failure, match=rf"r\.npz holds .* {config['model']}, not of {named}: name"):
        check_results.main([str(path), "--model", named])


def test_every_violation_of_every_file_is_listed(honest, tmp_path, checked, capsys):
    checked(honest | {"y_targets": honest["y_trues"], "indices": honest["indices"][::-1]})
    (tmp_path / "r.npz").rename(tmp_path / "bad.npz")
    checked(honest)
    with pytest.raises(Failure, match=r"^\S*bad\.npz failed: 3 violations$"):
        check_results.main([str(tmp_path / name) for name in ("bad.npz", "r.npz")])
    printed = capsys.readouterr().out
    assert re.findall("PASS|FAIL", printed) == ["FAIL", "PASS"]
    assert re.search("(?s)the target is.*y_trues is not.*xs is not", printed)
