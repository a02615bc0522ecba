"""What every attack asks of a model, of images and of labels.

A model is any Keras model from images in [0, 1] to logits (n, classes).
"""

import numpy as np


def checked(model, x, y, *, name="labels"):
    """Images and labels as the attacks work on them, once they fit each other and the model.

    x: (n, ...) in [0, 1].  y: integers (n,), classes of the model.  name: what messages call y.
    Returns (x, y): float32 and int64 arrays.  Raises ValueError for anything else.
    """
    x, y = np.asarray(x, np.float32), np.asarray(y)
    takes = tuple(model.input_shape[1:])
    if len(x.shape) != 1 + len(takes) or any(
        size not in (None, given) for size, given in zip(takes, x.shape[1:], strict=True)
    ):
        raise ValueError(f"images are {x.shape[1:]}, but the model takes {takes}")
    # Written so that NaN fails too.
    if x.size and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError("images have pixels outside [0, 1], or not numbers")
    if y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{name} are {y.dtype} {y.shape}, not integers {x.shape[:1]}")
    classes = model.output_shape[-1]
    if len(y) and not 0 <= y.min() <= y.max() < classes:
        raise ValueError(f"{name} must be from 0 to {classes - 1}")
    return x, y.astype(np.int64)


def positive(name, value, *, whole=False):
    """Raise ValueError unless `value` is above 0 and finite in float32; whole: a whole number."""
    if not 0 < value <= float(np.finfo(np.float32).max):
        raise ValueError(f"{name} must be a finite number above 0, not {value!r}")
    if whole and not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be a whole number, not {value!r}")


def pixel_size(name, value):
    """Raise ValueError unless `value` is in [0, 1], as epsilon is."""
    if not 0 <= value <= 1:
        raise ValueError(
            f"{name} is in [0, 1] pixel units (8/255 = 0.0314), which {value!r} is not"
        )
