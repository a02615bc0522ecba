"""The file in which an attack leaves its results, and from which the figures are drawn.

An `.npz` without pickle, with one row an image:

    xs                     float32 (n, 28, 28)  the original images, in [0, 1]
    noises                 float32 (n, 28, 28)  what was added: xs + noises is the adversarial image
    y_trues                int64 (n,)           labels
    y_preds                int64 (n,)           what the model said of xs (the label: see below)
    y_preds_adversarial    int64 (n,)           what it says of xs + noises
    y_targets              int64 (n,)           what it should say (method 1 alone)
    indices                int64 (n,)           rows of the images in the file they were drawn from
    config                 str                  JSON: every setting, and the package versions

plus whatever else an attack measures of each image (float32, float64 or int64, n rows).  Only
images that the model classified correctly before the attack are kept; `left_out` in the config
counts the others.  Reading and writing take NumPy alone.
"""

import json
import platform
from importlib import metadata

import numpy as np

from common import files
from common.command import Failure

IMAGES = ("xs", "noises")
LABELS = ("y_trues", "y_preds", "y_preds_adversarial")
OPTIONAL_LABELS = ("y_targets", "indices")
MEASURED = ("float32", "float64", "int64")
ROUNDING = 1e-6  # of x + (x_adv - x) in float32
PACKAGES = ("tensorflow", "keras", "numpy", "matplotlib")


def versions():
    """The versions of Python and of the packages that results depend on, as a dict of strings."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # tensorflow-cpu, say, goes by another name
            found[package] = "unknown"
    return found


def save(
    path,
    *,
    xs,
    noises,
    y_trues,
    y_preds,
    y_preds_adversarial,
    config,
    y_targets=None,
    indices=None,
    **measured,
):
    """Write a result file; the same arguments give the same bytes.

    `config` is a dict of settings that JSON can hold; the package versions are added to it under
    "versions".  `measured` holds further arrays with a row for each image.  Raises `ValueError`
    for arrays that `load` would turn down, `Failure` when the file cannot be written.
    """
    arrays = {
        "xs": np.asarray(xs, np.float32),
        "noises": np.asarray(noises, np.float32),
        "y_trues": np.asarray(y_trues, np.int64),
        "y_preds": np.asarray(y_preds, np.int64),
        "y_preds_adversarial": np.asarray(y_preds_adversarial, np.int64),
    }
    for name, labels in (("y_targets", y_targets), ("indices", indices)):
        if labels is not None:
            arrays[name] = np.asarray(labels, np.int64)
    arrays |= {name: np.asarray(array) for name, array in measured.items()}
    arrays["config"] = np.array(json.dumps(config | {"versions": versions()}, sort_keys=True))
    flaw = next(flaws(arrays), None)
    if flaw:
        raise ValueError(flaw)
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load(path, *, remedy="write it again with the attack script"):
    """Read a result file: a dict of the arrays above, with `config` as a dict.

    Raises `Failure`, one line with `remedy` as the way out, when the file is missing, truncated,
    pickled, or holds anything but results.
    """
    arrays = files.read_npz(path, remedy=remedy)
    flaw = next(flaws(arrays), None)
    if flaw:
        raise Failure(f"{files.show(path)} is not a result file ({flaw}): {remedy}")
    return arrays | {"config": json.loads(str(arrays["config"]))}


def flaws(arrays):
    """Yield, one line each, what keeps these arrays from being results."""
    missing = [name for name in (*IMAGES, *LABELS, "config") if name not in arrays]
    yield from (f"{name} is missing" for name in missing)
    if "xs" in missing:
        return
    shape = arrays["xs"].shape
    if len(shape) < 3:
        yield f"xs has shape {shape}, not (n, height, width)"
        return
    flawed = set(missing)
    for name, array in arrays.items():
        flaw = _text_flaw(array) if name == "config" else _array_flaw(name, array, shape)
        if flaw:
            flawed.add(name)
            yield f"{name} {flaw}"
    for names in IMAGES[:1], IMAGES:
        if flawed.isdisjoint(names):
            image = arrays["xs"] if names == IMAGES[:1] else arrays["xs"] + arrays["noises"]
            if image.size and not -ROUNDING <= image.min() <= image.max() <= 1 + ROUNDING:
                yield f"{' + '.join(names)} has pixels outside [0, 1]"


def _text_flaw(array):
    if array.shape != () or array.dtype.kind != "U":
        return "is not a text"
    try:
        settings = json.loads(str(array))
    except (ValueError, RecursionError):
        return "is not JSON"
    return None if isinstance(settings, dict) else "is not a JSON object"


def _array_flaw(name, array, shape):
    label = name in (*LABELS, *OPTIONAL_LABELS)
    dtypes = ("float32",) if name in IMAGES else ("int64",) if label else MEASURED
    if array.dtype.name not in dtypes:
        return f"is {array.dtype.name}, not {' or '.join(dtypes)}"
    expected = shape if name in IMAGES else shape[:1] if label else array.shape
    if array.shape != expected:
        return f"has shape {array.shape}, not {expected}"
    if array.shape[:1] != shape[:1]:
        return f"has shape {array.shape}, not {shape[0]} rows"
    if not np.isfinite(array).all():
        return "holds values that are not finite"
    if label and array.size and array.min() < 0:
        return "holds numbers below 0"
    return None
