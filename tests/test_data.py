"""The digits are the digits, and a file that is anything else is refused in one line."""

import zipfile

import numpy as np
import pytest

from common import data, files, generate_5k, make_mnist
from common.command import Failure


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


def small(path, **change):
    arrays = {
        "x_train": np.zeros((60000, 28, 28), np.uint8),
        "y_train": np.zeros(60000, np.uint8),
        "x_test": np.zeros((10000, 28, 28), np.uint8),
        "y_test": np.zeros(10000, np.uint8),
        **change,
    }
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda p: p.write_bytes(b""), "truncated or not"),
        (lambda p: p.write_bytes(data.PATH.read_bytes()[:5_000_000]), "truncated or not"),
        (lambda p: p.write_bytes(b"this is a text file\n" * 9), "truncated or not"),
        (lambda p: p.mkdir(), "cannot read"),
        (lambda p: small(p), "altered"),
        (lambda p: small(p, x_test=None), "truncated or not"),
        (lambda p: small(p, x_test=np.zeros((10000, 28, 27), np.uint8)), "not uint8"),
        (lambda p: small(p, x_test=np.zeros((10, 28, 28))), "not uint8"),
        (lambda p: small(p, x_test=np.array([object()])), "truncated or not"),
        (lambda p: p.with_suffix("").write_bytes(b"") or np.save(p.open("wb"), [1]), "truncated"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, break_it, message):
    path = tmp_path / "mnist.npz"
    break_it(path)
    with pytest.raises(Failure, match=message) as failure:
        data.load("test", path)
    assert "mnist.npz" in str(failure.value)
    assert "git checkout" in str(failure.value)


def test_one_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "mnist.npz"
    content = bytearray(data.PATH.read_bytes())
    with zipfile.ZipFile(data.PATH) as archive:
        start = archive.getinfo("x_test.npy").header_offset
    content[start + 100_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(Failure, match=r"mnist\.npz"):
        data.load("test", path)


def test_an_absent_file_without_network_says_both_ways_out(tmp_path, monkeypatch):
    import keras

    def no_network(*arguments, **settings):
        raise OSError("no route to host")

    monkeypatch.setattr(keras.utils, "get_file", no_network)
    with pytest.raises(Failure, match=r"downloading it failed.*git checkout"):
        data.load("test", tmp_path / "mnist.npz")


def test_a_downloaded_file_goes_through_the_same_checks(tmp_path, monkeypatch):
    import keras

    monkeypatch.setattr(keras.utils, "get_file", lambda *a, **k: str(data.PATH))
    assert data.load("test", tmp_path / "mnist.npz")[0].shape == (10000, 28, 28)
    small(tmp_path / "other.npz")
    monkeypatch.setattr(keras.utils, "get_file", lambda *a, **k: str(tmp_path / "other.npz"))
    with pytest.raises(Failure, match="altered"):
        data.load("test", tmp_path / "mnist.npz")


def test_packing_refuses_files_that_are_not_the_original(tmp_path):
    output = tmp_path / "mnist.npz"
    with pytest.raises(Failure, match="train-images-idx3-ubyte"):
        make_mnist.main([str(tmp_path), "--output", str(output)])
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0" * 47040016)
    with pytest.raises(Failure, match="MD5"):
        make_mnist.main([str(tmp_path), "--output", str(output)])
    assert not output.exists()


def test_packing_the_originals_gives_the_file_in_the_repository(tmp_path, monkeypatch):
    """The IDX files are rebuilt from the arrays; their MD5 sums are the published ones."""
    dimensions = {"x": (28, 28), "y": ()}
    with np.load(data.PATH, allow_pickle=False) as arrays:
        for name, file_name, _, shape, _ in make_mnist.IDX_FILES:
            head = [0x0800 + len(shape), shape[0], *dimensions[name[0]]]
            header = np.array(head, ">i4").tobytes()
            (tmp_path / file_name).write_bytes(header + arrays[name].tobytes())
    read = make_mnist.read_idx(tmp_path)
    with np.load(data.PATH, allow_pickle=False) as arrays:
        for name, array in read.items():
            np.testing.assert_array_equal(array, arrays[name])


def test_samples_are_distinct_test_digits(tmp_path, digits):
    output = tmp_path / "s.npz"
    generate_5k.main(["--output", str(output)])
    images, labels, indices = data.load_samples(output)
    assert images.shape == (5000, 28, 28)
    assert len(set(indices.tolist())) == 5000
    np.testing.assert_array_equal(images, digits[0][indices])
    np.testing.assert_array_equal(labels, digits[1][indices])


def test_the_same_seed_draws_the_same_samples_to_the_byte(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        generate_5k.main(["--count", "50", "--seed", str(seed), "--output", f"{tmp_path}/{name}"])
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again
    assert first != other


def test_more_samples_than_digits_are_refused(tmp_path):
    with pytest.raises(Failure, match="10001"):
        generate_5k.main(["--count", "10001", "--output", str(tmp_path / "s.npz")])


GOOD = {
    "images": np.zeros((3, 28, 28), np.float32),
    "labels": np.array([1, 2, 3]),
    "indices": np.array([5, 6, 7]),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((3, 28, 28))}, "float64"),
        ({"images": np.zeros((3, 27, 28), np.float32)}, "27"),
        ({"images": np.full((3, 28, 28), 2, np.float32)}, "pixels"),
        ({"images": np.full((3, 28, 28), np.nan, np.float32)}, "pixels"),
        ({"images": np.zeros((0, 28, 28), np.float32)}, "one or more"),
        ({"labels": np.array([1, 2])}, "labels"),
        ({"labels": np.array([1, 2, 10])}, "labels"),
        ({"indices": np.array([-1, 2, 3])}, "indices"),
        ({"indices": np.array([object()] * 3)}, "truncated or not"),
    ],
)
def test_other_samples_are_refused(tmp_path, change, message):
    path = tmp_path / "s.npz"
    np.savez(path, **{**GOOD, **change})
    with pytest.raises(Failure, match=message):
        data.load_samples(path)


def test_absent_samples_name_the_script_that_makes_them(tmp_path):
    with pytest.raises(Failure, match=r"python common/generate_5k\.py"):
        data.load_samples(tmp_path / "s.npz")


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted():
        with files.replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_outputs_are_checked_before_the_work(tmp_path):
    with pytest.raises(Failure, match="does not exist"):
        files.check_output(tmp_path / "missing" / "a.png")
    with pytest.raises(Failure, match="folder"):
        files.check_output(tmp_path)
    (tmp_path / "a.png").write_text("old")
    assert files.check_output(tmp_path / "a.png").read_text() == "old"
