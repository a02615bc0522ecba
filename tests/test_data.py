"""The digits are the digits, and a file that is anything else is refused in one line."""

import os
import subprocess
import sys
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
    """A file such as ours, with other digits."""
    arrays = {"x_test": np.zeros((10000, 28, 28), np.uint8), "y_test": np.zeros(10000, np.uint8)}
    arrays |= change
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def cut(path):
    path.write_bytes(data.PATH.read_bytes()[:5_000_000])


def flip_a_bit(path):
    content = bytearray(data.PATH.read_bytes())
    with zipfile.ZipFile(data.PATH) as archive:
        content[archive.getinfo("x_test.npy").header_offset + 100_000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (cut, "truncated or not"),
        (flip_a_bit, "truncated or not"),
        (small, "altered"),
        (lambda path: small(path, x_test=None), "truncated or not"),
        (lambda path: small(path, x_test=np.zeros((10000, 28, 27), np.uint8)), "not uint8"),
        (lambda path: small(path, x_test=np.zeros((10, 28, 28))), "not uint8"),
    ],
)
def test_other_digits_are_refused(tmp_path, make, message):
    path = tmp_path / "mnist.npz"
    make(path)
    with pytest.raises(Failure, match=rf"mnist\.npz.*{message}.*git checkout|altered") as failure:
        data.load("test", path)
    assert message in str(failure.value)


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


def test_more_samples_than_digits_are_refused():
    with pytest.raises(Failure, match="10001"):
        data.draw_samples(10001, 0)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("images", np.zeros((3, 27, 28), np.float32)),
        ("images", np.zeros((0, 28, 28), np.float32)),
        ("images", np.full((3, 28, 28), np.nan, np.float32)),
        ("images", np.full((3, 28, 28), 1.5, np.float32)),
        ("labels", np.array([1, 2])),
        ("labels", np.array([1, 2, 10])),
        ("labels", np.array([1.0, 2.0, 3.0])),
        ("indices", np.array([-1, 2, 3])),
        ("indices", np.array([1, 2, 10000])),
        ("labels", np.array([-1, 2, 3], np.int8)),
    ],
)
def test_other_samples_are_refused(tmp_path, name, array):
    """Of broken files and pixels, tests/test_bad_input.py says the same."""
    path = tmp_path / "s.npz"
    arrays = {"images": np.zeros((3, 28, 28), np.float32)}
    arrays |= {"labels": np.array([1, 2, 3]), "indices": np.array([5, 6, 7])}
    np.savez(path, **{**arrays, name: array})
    with pytest.raises(Failure, match=rf"s\.npz: {name} are"):
        data.load_samples(path)


@pytest.mark.parametrize("missing", ["images", "labels"])
def test_samples_without_images_or_labels_are_refused(tmp_path, missing):
    arrays = {"images": np.zeros((3, 28, 28), np.float32), "labels": np.array([1, 2, 3])}
    arrays.pop(missing)
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(Failure, match=f"holds no {missing}"):
        data.load_samples(tmp_path / "s.npz")


def test_samples_of_ones_own_need_no_indices_and_may_be_bytes(tmp_path, digits, capsys):
    x, y = digits[0][:5], digits[1][:5]
    whole = (x * 255).round().astype(np.uint8)
    np.savez(tmp_path / "s.npz", images=whole, labels=y.astype(np.uint8))
    images, labels, indices = data.load_samples(tmp_path / "s.npz", limit=4)
    np.testing.assert_array_equal(images, x[:4])
    assert images.dtype == np.float32
    np.testing.assert_array_equal(labels, y[:4])
    assert labels.dtype == np.int64
    assert indices is None
    assert capsys.readouterr().err == ""


def test_white_paper_is_warned_of(tmp_path, digits, capsys):
    x = digits[0][:5].copy()
    x[:2] = 1 - x[:2]
    np.savez(tmp_path / "s.npz", images=x, labels=digits[1][:5])
    np.testing.assert_array_equal(data.load_samples(tmp_path / "s.npz")[0], x)
    (warning,) = capsys.readouterr().err.splitlines()
    assert "2 of 5 images have a bright edge" in warning


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


HOLD = """
import sys
from common import files
with files.locked(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_with_the_same_output_is_refused_while_the_first_runs(tmp_path):
    path = tmp_path / "a.csv"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(files.ROOT)},
    ) as first:
        assert first.stdout.readline() == b"locked\n"
        with pytest.raises(Failure, match=r"another run is writing .*a\.csv"), files.locked(path):
            pytest.fail("two runs at once")
        with files.locked(tmp_path / "b.csv"):
            pass
        first.kill()
    # The lock that a dead run leaves behind is no obstacle.
    assert list(tmp_path.iterdir()) == [tmp_path / ".a.csv.lock"]
    with files.locked(path):
        pass
    assert list(tmp_path.iterdir()) == []
