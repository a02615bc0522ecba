"""The digits are the digits, and a file that is anything else is refused in one line."""

import zipfile

import numpy as np
import pytest

from common import data, files, generate_5k
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


def other(path, **change):
    """A file such as ours, with other digits."""
    arrays = {"x_test": np.zeros((10000, 28, 28), np.uint8), "y_test": np.zeros(10000, np.uint8)}
    np.savez(path, **arrays | change)


def flip_a_bit(path):
    content = bytearray(data.PATH.read_bytes())
    with zipfile.ZipFile(data.PATH) as archive:
        content[archive.getinfo("x_test.npy").header_offset + 100_000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (flip_a_bit, "truncated"),
        (other, "altered"),
        (lambda path: other(path, x_test=np.zeros((10000, 28, 28))), "not uint8"),
    ],
)
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
        ("labels", np.array(1), r"labels are int64 \(\), not numbers of classes"),
        ("labels", np.array([1, 2, 10]), "labels are not all from 0 to 9"),
        ("images", np.zeros((3, 27, 28)), r"images are .*, not \(n, 28, 28\)"),
        ("images", np.ones((3, 28, 28), np.uint8), "the largest pixel is 1, not 255"),
        ("indices", np.array([1, 2]), "indices are int64"),
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
    (tmp_path / "file").write_text("old")

    def interrupted():
        with files.replacing(tmp_path / "file") as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_files_whose_long_names_end_alike_are_written_at_the_same_time(tmp_path):
    tail = "_panorama_stitched_on_a_sunny_afternoon.jpg.png"
    paths = tmp_path / f"left{tail}", tmp_path / f"right{tail}"
    with files.replacing(paths[0]) as left, files.replacing(paths[1]) as right:
        left.write_text("left")
        right.write_text("right")
    assert [path.read_text() for path in paths] == ["left", "right"]
    assert len(list(tmp_path.iterdir())) == 2
