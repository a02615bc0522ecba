"""The random test digits that the attack scripts work on: read and written in one place."""

import numpy as np

from common import data, files, npz
from common.command import Failure

PATH = files.COMMON / "5k_samples.npz"


def draw(count, seed):
    """Choose `count` distinct test digits at random.

    Returns (images, labels, indices): float32 (count, 28, 28) in [0, 1], int64 (count,), and the
    places in the test set, int64 (count,).  Raises `Failure` when there are not that many.
    """
    x, y = data.load("test")
    if count > len(x):
        raise Failure(f"--count {count}: the test set has only {len(x)} digits")
    indices = np.random.default_rng(seed).permutation(len(x))[:count]
    return x[indices], y[indices], indices.astype(np.int64)


def load(path=None):
    """Read a sample file, common/5k_samples.npz by default: (images, labels, indices) as in `draw`.

    Raises `Failure` when the file is missing, broken or holds anything but such arrays.
    """
    path = PATH if path is None else path
    shown = files.show(path)
    again = "make it with `python common/generate_5k.py`"
    arrays = npz.read(
        path,
        ("images", "labels", "indices"),
        holds="an .npz of images, labels and indices",
        remedy=again,
    )
    images, labels, indices = arrays.values()
    if images.dtype != np.float32 or images.ndim != 3 or images.shape[1:] != (28, 28):
        raise Failure(
            f"{shown}: images are {images.dtype} {images.shape}, not float32 (n, 28, 28); {again}"
        )
    # Written so that NaN fails too.
    if not (images.size and images.min() >= 0 and images.max() <= 1):
        raise Failure(f"{shown}: images are not one or more with pixels in [0, 1]; {again}")
    for name, array, end in (("labels", labels, data.CLASSES), ("indices", indices, 10000)):
        if array.dtype != np.int64 or array.shape != images.shape[:1]:
            raise Failure(
                f"{shown}: {name} are {array.dtype} {array.shape}, "
                f"not int64 {images.shape[:1]}; {again}"
            )
        if array.min() < 0 or array.max() >= end:
            raise Failure(f"{shown}: {name} are not all from 0 to {end - 1}; {again}")
    return images, labels, indices
