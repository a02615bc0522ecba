"""The file in which an attack leaves its results, and from which the figures are drawn.

An `.npz` without pickle, with one row an image; common/README.md ("Result files") says what each
array holds.  There may be `signs`, too: of one sign step, -1, 0 or 1, with the shape of `xs`.
"""

import json
import platform
from importlib import metadata
from pathlib import Path

import numpy as np

from common import files
from common.command import Failure

IMAGES = ("xs", "noises")
LABELS = ("y_trues", "y_preds", "y_preds_adversarial")
# The dtype of each array, and whether a row of it is an image or a number.
KEYS = dict.fromkeys((*IMAGES, "signs"), ("float32", "image"))
KEYS |= dict.fromkeys((*LABELS, "y_targets", "indices"), ("int64", "number"))
KEYS["confidences_adversarial"] = "float32", "number"
ROUNDING = 1e-6  # of x + (x_adv - x) in float32


def versions():
    """The versions of Python and of the packages that results depend on: a dict of strings."""
    found = {"python": platform.python_version()}
    for package in ("tensorflow", "keras", "numpy", "matplotlib"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # tensorflow-cpu, say, goes by another name
            found[package] = "unknown"
    return found


def save(path, *, config, **arrays):
    """Write a result file; the same arguments give the same bytes.

    config: settings for JSON.  arrays: those of `KEYS`, None where an optional one is not there,
    and other numbers with a row for each image.  Raises `ValueError` for what `load` turns down.
    """
    # Always in the same order.
    arrays = {name: arrays[name] for name in (*KEYS, *arrays) if arrays.get(name) is not None}
    arrays = {name: np.asarray(a, KEYS.get(name, (None,))[0]) for name, a in arrays.items()}
    arrays["config"] = np.array(json.dumps(config | {"versions": versions()}, sort_keys=True))
    if wrong := problem(arrays):
        raise ValueError(wrong)
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load(path, *, remedy="write it again with the attack script"):
    """Read a result file: a dict of its arrays, with `config` as a dict.  Raises `Failure`, with
    `remedy` as the way out, for what is broken or no results."""
    arrays = files.read_npz(path, remedy=remedy)
    if wrong := problem(arrays):
        raise Failure(f"{files.show(path)} is not a result file ({wrong}): {remedy}")
    return arrays | {"config": dict(json.loads(str(arrays["config"])))}


def load_from(path, *scripts):
    """As `load`, to draw it, the file of one of these attack scripts (paths from the root); one
    without an image is refused, too."""
    names, remedy = [Path(script).stem for script in scripts], f"run `python {scripts[0]}`"
    found = load(path, remedy=remedy)
    if Path(str(found["config"].get("script"))).stem not in names:
        raise Failure(f"{files.show(path)} holds no results of {' or '.join(scripts)}: {remedy}")
    if not len(found["xs"]):
        raise Failure(f"{files.show(path)} holds no image: {remedy} on others")
    return found


def succeeded(found):
    """Which attacks of a file reached their target, or left the label where there is none, with the
    confidence that was asked for: (n,)."""
    seen, targets = found["y_preds_adversarial"], found.get("y_targets")
    hit = seen != found["y_trues"] if targets is None else seen == targets
    least = found["config"].get("confidence")
    sure = least is None or found["confidences_adversarial"].astype(np.float64) > least
    return hit & sure


def problem(arrays):
    """What keeps these arrays from being results, as a line; None where they are."""
    for name in (*IMAGES, *LABELS, "config"):
        if name not in arrays:
            return f"{name} is missing"
    try:
        config = dict(json.loads(str(arrays["config"])))
    except (TypeError, ValueError, RecursionError):
        return "config is not a JSON object"
    least = config.get("confidence")
    if least is not None and not ("confidences_adversarial" in arrays and isinstance(least, float)):
        return "confidence is no number, or confidences_adversarial is missing"
    images = arrays["xs"].shape
    if len(images) < 3:
        return f"xs has shape {images}, not (n, height, width)"
    for name, array in arrays.items():
        dtype, row = KEYS.get(name, (array.dtype, None))
        shape = images if row == "image" else images[:1] + (() if row else array.shape[1:])
        numbers = array.dtype == dtype and array.dtype.kind in "fi" and array.shape == shape
        if name != "config" and not (numbers and np.isfinite(array).all()):
            return f"{name} is {array.dtype} {array.shape}, not finite numbers, {dtype} {shape}"
        if row == "number" and (array < 0).any():
            return f"{name} holds numbers below 0"
    for name, x in (("xs", arrays["xs"]), ("xs + noises", arrays["xs"] + arrays["noises"])):
        if x.size and not -ROUNDING <= x.min() <= x.max() <= 1 + ROUNDING:
            return f"{name} has pixels outside [0, 1]"
    return None
