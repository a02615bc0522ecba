"""The 70,000 MNIST digits, checked each time they are read, and files of samples, anyone's.

Images come as float32 in [0, 1], digits with shape (n, 28, 28), labels as int64 with shape (n,).
"""

import hashlib
import sys

import numpy as np
from tqdm import tqdm

from common import command, files
from common.command import Failure
from common.run import photos
from common.search import checks

PATH = files.COMMON / "mnist.npz"
# The random test digits that the attack scripts work on.
SAMPLES = files.COMMON / "5k_samples.npz"
SIDE = 28
CLASSES = 10

# name: shape and SHA-256 of the uint8 array's bytes, row-major
ARRAYS = {
    "x_train": (
        (60000, 28, 28),
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    ),
    "y_train": ((60000,), "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13"),
    "x_test": ((10000, 28, 28), "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161"),
    "y_test": ((10000,), "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5"),
}


def load(split, path=None):
    """Read one half of MNIST: `split` is "train" (60,000 digits) or "test" (10,000).

    Returns (x, y): float32 (n, 28, 28) in [0, 1] and int64 (n,).  Raises `Failure` when the file is
    missing, broken or holds other arrays than the original MNIST.
    """
    path = PATH if path is None else path
    x, y = (_read(path, f"{kind}_{split}") for kind in "xy")
    return x.astype(np.float32) / np.float32(255), y.astype(np.int64)


def _read(path, name):
    """One array of the file, after its shape, dtype and SHA-256 have been checked."""
    shape, sha256 = ARRAYS[name]
    restore = f"restore it with `git checkout {files.show(PATH)}`"
    array = files.read_npz(path, [name], holds=f"an .npz with {name}", remedy=restore)[name]
    if array.shape != shape or array.dtype != np.uint8:
        problem = f"is {array.dtype} {array.shape}, not uint8 {shape}"
    elif hashlib.sha256(np.ascontiguousarray(array)).hexdigest() != sha256:
        problem = "was altered (SHA-256 differs from MNIST's)"
    else:
        return array
    raise Failure(f"{files.show(path)}: {name} {problem}; {restore}")


def add_samples(parser):
    """--samples: the file of digits to work on; for a network of one's own also a folder."""
    command.option(parser, "--samples", command.path, SAMPLES, "a file of samples, or a folder")


def draw_samples(count, seed):
    """Choose `count` distinct test digits at random.

    Returns (images, labels, indices): float32 (count, 28, 28) in [0, 1], int64 (count,), and in the
    test set, int64 (count,).  Raises `Failure` when there are not that many.
    """
    x, y = load("test")
    if count > len(x):
        raise Failure(f"--count {count}: the test set has only {len(x)} digits")
    indices = np.random.default_rng(seed).permutation(len(x))[:count]
    return x[indices], y[indices], indices.astype(np.int64)


def load_samples(path=None, limit=None):
    """Read a file of digits, common/5k_samples.npz by default, or the first `limit` of them.

    Returns (images, labels, indices) as in `draw_samples`, indices None where the file has none.
    White paper gets a warning on stderr.  The file and what is raised: as in `load_own_samples`.
    """
    path = SAMPLES if path is None else path
    again = "make it with `python common/generate_5k.py`, or of your own with common/my_digits.py"
    arrays = _read_samples(path, again, (SIDE, SIDE), CLASSES)
    images, labels = _chosen(arrays, slice(limit))
    white = int((np.median(images, axis=(1, 2)) > 0.5).sum())
    if white:
        print(
            f"warning: {files.show(path)}: {white} of {len(images)} images are bright: "
            "a digit is white on black here, so invert them (1 - images)",
            file=sys.stderr,
        )
    indices = arrays.get("indices")
    return images, labels, indices if indices is None else indices[:limit].astype(np.int64)


def drawn(count, limit, seed=0):
    """Which `limit` of `count` samples, drawn since they may lie sorted: int64, in order."""
    limit = count if limit is None else min(limit, count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


def load_own_samples(path, limit=None, seed=0, *, dark=False):
    """Read a file of samples for a network of one's own, or `limit` of them, as `drawn` draws them.

    images: uint8 from 0 to 255 or floating point in [0, 1], (n, h, w) or (n, h, w, c).  labels:
    integers (n,) or (n, 1), or one-hot (n, classes).  They may also be called x_test and y_test.
    names: text (classes,), may be missing.  dark: whether uint8 may stay below 128, as it does not
    where white is 255.
    Returns (images, labels, names): float32 in [0, 1], int64 (n,), a tuple of strings or None.
    Raises `Failure` when the file is missing, broken or holds anything but such arrays.
    """
    remedy = "make it with np.savez(FILE, images=x, labels=y), the classes y as numbers from 0"
    arrays = _read_samples(path, remedy, dark=dark)
    images, labels = _chosen(arrays, drawn(len(arrays["images"]), limit, seed))
    return images, labels, tuple(map(str, arrays["names"])) if "names" in arrays else None


def load_folder(path, shape, limit=None, seed=0):
    """Read a folder with a subfolder of pictures for each class, as `load_own_samples` a file.

    Its classes are sorted as text, as keras.utils.image_dataset_from_directory has them.  shape:
    (h, w, 3), or (h, w) for the luminance, to which pictures are cut as photographs are
    (common/run/photos.py).  What cannot be read is named on stderr and left out.
    """

    def skip(name, reason):
        print(command.one_line(f"skipped {name}: {reason}"), file=sys.stderr)

    try:
        folders = [each for each in path.iterdir() if each.is_dir()]
    except OSError as error:
        raise Failure(f"cannot read {files.show(path)}: {files.reason(error)}") from error
    names = sorted(each.name for each in folders if not each.name.startswith("."))
    every = [(each, i) for i, name in enumerate(names) for each in photos.walk(path, skip, name)]
    chosen = tqdm([every[row] for row in drawn(len(every), limit, seed)], disable=None)
    found, images, skipped, _ = photos.read_batch(path, shape[:2], (chosen, None))
    for problem in skipped:
        skip(*problem)
    if not found:
        remedy = "give one with a subfolder of pictures for each class"
        raise Failure(f"no picture in the subfolders of {files.show(path)}: {remedy}")
    if len(shape) == 2:
        images = np.rint(images @ (0.299, 0.587, 0.114))
    labels = np.array([label for _, label in found])
    return images.astype(np.float32) / np.float32(255), labels, tuple(names)


def _read_samples(path, remedy, shape=None, classes=np.inf, *, dark=False):
    """The arrays of a file of samples, as they are.  shape, classes: what they have to be."""
    arrays = files.read_npz(path, holds="an .npz of images and labels", remedy=remedy)
    for name, other in (("images", "x_test"), ("labels", "y_test")):
        arrays.setdefault(name, arrays.get(other))
    if problem := _problem(arrays, shape, classes, dark):
        raise Failure(f"{files.show(path)}: {problem}; {remedy}")
    return arrays


def _chosen(arrays, rows):
    """These rows of the images and labels: float32 in [0, 1], int64 (n,)."""
    images, labels = arrays["images"][rows], arrays["labels"][rows]
    if labels.ndim == 2:
        labels = labels[:, 0] if labels.shape[1] == 1 else labels.argmax(axis=1)
    scale = np.float32(255 if images.dtype == np.uint8 else 1)
    return images.astype(np.float32) / scale, labels.astype(np.int64)


def _problem(arrays, shape, classes, dark):
    """What is wrong with the arrays of a file of samples, None if nothing."""
    images, labels, names, indices = map(arrays.get, ("images", "labels", "names", "indices"))
    if images is None or labels is None:
        return "it holds no images, or no labels"
    form, count = images.shape[1:], len(images) if images.ndim else 0
    whole, kind = images.dtype == np.uint8, f"{images.dtype} {images.shape}"
    if not (whole or images.dtype.kind == "f") or len(form) not in (2, 3) or not images.size:
        return f"images are {kind}, not uint8 or float32 (n, h, w[, c])"
    if shape and shape != form:
        return f"images are {kind}, not (n, {shape[0]}, {shape[1]})"
    if not whole and (problem := checks.outside(images)[0]):
        return problem
    if whole and not dark and images.max() < 128:
        return (
            f"the largest pixel is {images.max()}, not 255: give floats in [0, 1] of the range "
            "that the network was trained on, or say what it expects with --pixels"
        )
    one_hot = labels.ndim == 2 and labels.shape[1] > 1
    if one_hot and not (((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()):
        return "labels are not one-hot"
    number = one_hot or (labels.dtype.kind in "iu" and labels.shape[1:] in ((), (1,)))
    if not number or labels.shape[:1] != (count,) or labels.min() < 0:
        kind = f"{labels.dtype} {labels.shape}"
        return f"labels are {kind}, not numbers of classes from 0 for {count} images"
    if (labels.shape[1] - 1 if one_hot else labels.max()) >= classes:
        return f"labels are not all from 0 to {classes - 1}"
    if names is not None and (names.dtype.kind != "U" or names.ndim != 1):
        return f"names are {names.dtype} {names.shape}, not text (classes,)"
    if indices is not None and (indices.dtype.kind not in "iu" or indices.shape != (count,)):
        return f"indices are {indices.dtype} {indices.shape}, not integers ({count},)"
    return None
