"""The file in which an attack leaves its results, and from which the figures are drawn.

An `.npz` without pickle, with one row an image:

    xs                     float32 (n, 28, 28)  the original images, in [0, 1], or (n, h, w, c)
    noises                 float32 (n, 28, 28)  what was added: xs + noises is the adversarial image
    y_trues                int64 (n,)           labels
    y_preds                int64 (n,)           what the model said of xs (the label: see below)
    y_preds_adversarial    int64 (n,)           what it says of xs + noises
    y_targets              int64 (n,)           what it should say, where it had to be one class
    indices                int64 (n,)           rows of the images in the file they were drawn from
    signs                  float32 (n, 28, 28)  of one sign step: -1, 0 or 1
    config                 str                  JSON: every setting, and the package versions

plus whatever else an attack measures of each image (numbers, n rows).  Only
images that the model classified correctly before the attack are kept; `left_out` in the config
counts the others.  Reading and writing take NumPy alone.
"""

import json
import platform
from importlib import metadata
from pathlib import Path

import numpy as np

from common import command, files
from common.command import Failure

IMAGES = ("xs", "noises")
LABELS = ("y_trues", "y_preds", "y_preds_adversarial")
# The dtype of each array, and whether a row of it is an image or a number.
KEYS = dict.fromkeys((*IMAGES, "signs"), ("float32", "image"))
KEYS |= dict.fromkeys((*LABELS, "y_targets", "indices"), ("int64", "number"))
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


def save(path, *, config, **arrays):
    """Write a result file; the same arguments give the same bytes.

    `config` is a dict of settings that JSON can hold; the package versions are added to it under
    "versions".  `arrays` are those above, None where an optional one is not there, and further
    ones with a row for each image.  Raises `ValueError` for arrays that `load` would turn down,
    `Failure` when the file cannot be written.
    """
    names = dict.fromkeys((*KEYS, *arrays))  # always in the same order
    arrays = {
        name: np.asarray(arrays[name], KEYS.get(name, (None,))[0])
        for name in names
        if arrays.get(name) is not None
    }
    arrays["config"] = np.array(json.dumps(config | {"versions": versions()}, sort_keys=True))
    if wrong := problem(arrays):
        raise ValueError(wrong)
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load(path, *, remedy="write it again with the attack script"):
    """Read a result file: a dict of the arrays above, with `config` as a dict.

    Raises `Failure`, one line with `remedy` as the way out, when the file is missing, truncated,
    pickled, or holds anything but results.
    """
    arrays = files.read_npz(path, ours=True, remedy=remedy)
    if wrong := problem(arrays):
        raise Failure(f"{files.show(path)} is not a result file ({wrong}): {remedy}")
    return arrays | {"config": json.loads(str(arrays["config"]))}


def add_arguments(parser, default, *, rows, columns):
    """RESULTS.npz, --rows and --columns of a script that draws results, with its defaults.

    default: the file, from the repository root.
    """
    parser.add_argument(
        "results",
        nargs="?",
        type=command.path,
        default=files.ROOT / default,
        help="the result file",
    )
    command.add_count(parser, "--rows", "images down", rows)
    command.add_count(parser, "--columns", "images across", columns)


def load_from(path, *scripts):
    """Read the result file of one of these attack scripts, to draw it: as `load` does.

    scripts: their paths from the repository root.  Raises `Failure` for the file of another
    script, and for one without an image.
    """
    names, remedy = [Path(script).stem for script in scripts], f"run `python {scripts[0]}`"
    found = load(path, remedy=remedy)
    if Path(str(found["config"].get("script"))).stem not in names:
        raise Failure(f"{files.show(path)} holds no results of {' or '.join(scripts)}: {remedy}")
    if not len(found["xs"]):
        raise Failure(f"{files.show(path)} holds no image: {remedy} on others")
    return found


def label(config, place):
    """What figures call a class: its name, where the settings have the names of the classes."""
    names = config.get("names")
    return names[place] if isinstance(names, list) and place < len(names) else str(place)


def succeeded(found):
    """Which attacks of a file reached their target, or left the label where there is none: (n,)."""
    seen = found["y_preds_adversarial"]
    return seen == found["y_targets"] if "y_targets" in found else seen != found["y_trues"]


def problem(arrays):
    """What keeps these arrays from being results, as a line; None where they are."""
    for name in (*IMAGES, *LABELS, "config"):
        if name not in arrays:
            return f"{name} is missing"
    try:
        if not isinstance(json.loads(str(arrays["config"])), dict):
            return "config is not a JSON object"
    except (ValueError, RecursionError):
        return "config is not JSON"
    xs = arrays["xs"]
    if xs.ndim < 3:
        return f"xs has shape {xs.shape}, not (n, height, width)"
    for name, array in arrays.items():
        wrong = name != "config" and _problem(array, xs.shape, *KEYS.get(name, (None, None)))
        if wrong:
            return f"{name} {wrong}"
    for name, x in (("xs", xs), ("xs + noises", xs + arrays["noises"])):
        if x.size and not -ROUNDING <= x.min() <= x.max() <= 1 + ROUNDING:
            return f"{name} has pixels outside [0, 1]"
    return None


def _problem(array, images, dtype, row):
    """What is wrong with one array; `images` is the shape of all of them."""
    if array.dtype != dtype if dtype else array.dtype.kind not in "fi":
        return f"is {array.dtype}, not {dtype or 'numbers'}"
    shape = images if row == "image" else images[:1] + (() if row else array.shape[1:])
    if array.shape != shape:
        return f"has shape {array.shape}, not {shape}"
    if not np.isfinite(array).all():
        return "holds values that are not finite"
    return "holds numbers below 0" if row == "number" and (array < 0).any() else None
