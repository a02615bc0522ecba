"""One batch of photographs: read, attacked, saved as 8-bit PNGs, and looked at again.

This is what a worker does for folder_attack.py, in this process or on another machine.
"""

import errno
import functools
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import files, models
from common.command import Failure
from common.imagenet import networks

KEPT = 9  # photographs for the figure, three by three


class Job(NamedTuple):
    """What is done to each batch.  Workers get it too: paths are absolute, functions importable."""

    attack: Callable  # attack(model, x, y) -> x_adv; y are the labels to leave, or to reach
    network: str
    weights: str | None  # a file of the network's weights
    weights_sha256: str | None  # what it has to be, on every machine
    folder: str  # of the photographs
    target: int | None
    save_images: str | None  # folder of the PNGs
    for_figure: Callable | None  # for_figure(model, x, y) -> more arrays for the first photographs


class Batch(NamedTuple):
    paths: list  # from the folder
    y_true: list  # labels, None where unknown
    keep: bool  # whether the first photographs for the figure are still looked for


@functools.lru_cache(maxsize=1)
def load_network(name, weights, sha256):
    """The network, loaded once a process; `weights` has to have that SHA-256 on every machine."""
    if weights and files.sha256(weights) != sha256:
        raise Failure(f"{weights} is another file on {platform.node()}: copy it there from here")
    return networks.load(name, weights and Path(weights))


def read_batch(folder, save_images, batch):
    """Read the photographs of a `Batch`: (the readable part of it, uint8 pixels, skipped).

    Skipped are those, too, whose PNG in `save_images`, if that is not None, would have a name
    longer than the system takes.
    """
    from common.imagenet import photos

    label = dict(zip(batch.paths, batch.y_true, strict=True))
    too_long = [path for path in batch.paths if save_images and _too_long(save_images, path)]
    paths = [path for path in batch.paths if path not in too_long]
    paths, pixels, skipped = photos.read_batch(folder, paths, networks.SIDE)
    skipped += [(path, "with .png added its name is too long to be saved") for path in too_long]
    return Batch(paths, [label[path] for path in paths], batch.keep), pixels, skipped


def attack_batch(job, prepared):
    """Attack a batch, save its PNGs, and look at what was saved.

    prepared: from `read_batch`.  Returns its rows, the (path, reason) of what was skipped, and,
    where the batch is to `keep` them, a dict of the paths and arrays of the first photographs.
    """
    (paths, _, _), _, skipped = prepared
    if not paths:
        return [], skipped, None
    import tensorflow as tf

    try:
        return _attack_batch(job, *prepared)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise Failure(
            f"out of memory with {len(paths)} photographs at a time: ask for fewer (--batch-size)"
        ) from error


def _attack_batch(job, batch, pixels, skipped):
    paths, y_true, keep = batch
    model = load_network(job.network, job.weights, job.weights_sha256)
    x = _floats(pixels)
    logits = model.predict_on_batch(x)
    y_pred = logits.argmax(axis=1)
    known = np.array([label is not None for label in y_true])
    y = np.array([p if t is None else t for t, p in zip(y_true, y_pred, strict=True)], np.int64)
    y_attacked = y if job.target is None else np.full_like(y, job.target)
    x_adv = job.attack(model, x, y_attacked)
    logits_adv = model.predict_on_batch(x_adv)
    y_adv = logits_adv.argmax(axis=1)
    counted = y == y_pred if job.target is None else (y == y_pred) & (y_pred != job.target)

    def fools(labels):
        succeeded = labels != y_pred if job.target is None else labels == job.target
        return np.where(counted, succeeded.astype(int).astype(str), "")

    noise = x_adv - x
    columns = {
        "path": paths,
        "y_pred": y_pred,
        "confidence": _texts(_confidence(logits)),
        "y_pred_adversarial": y_adv,
        "confidence_adversarial": _texts(_confidence(logits_adv)),
        # Five digits: the next ones are float32's rounding of x_adv - x.
        "linf": _texts(np.abs(noise).max(axis=(1, 2, 3)), 5),
        "l2": _texts(np.linalg.norm(noise.reshape(len(noise), -1), axis=1), 5),
        "fools": fools(y_adv),
        "y_true": np.where(known, y.astype(str), ""),
        "top5": np.where(known, _among_five(logits, y), ""),
        "top5_adversarial": np.where(known, _among_five(logits_adv, y), ""),
    }
    if job.save_images:
        saved = save(job.save_images, paths, round_to_8_bits(pixels, x_adv))
        logits_8bit = model.predict_on_batch(_floats(saved))
        change = np.abs(saved.astype(int) - pixels).max(axis=(1, 2, 3))
        columns |= {
            "y_pred_8bit": logits_8bit.argmax(axis=1),
            "confidence_8bit": _texts(_confidence(logits_8bit)),
            "linf_8bit": _texts(change / 255, 5),
            "fools_8bit": fools(logits_8bit.argmax(axis=1)),
        }
    batch_rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    chosen = np.flatnonzero(counted)[:KEPT] if keep else []
    if not len(chosen):
        return batch_rows, skipped, None
    first = {
        "paths": [paths[i] for i in chosen],
        "xs": x[chosen],
        "noises": noise[chosen],
        "y_trues": y[chosen],
        "y_preds": y_pred[chosen],
        "y_preds_adversarial": y_adv[chosen],
        "confidences": _confidence(logits[chosen]),
        "confidences_adversarial": _confidence(logits_adv[chosen]),
    }
    if job.for_figure:
        first |= job.for_figure(model, x[chosen], y_attacked[chosen])
    return batch_rows, skipped, first


def _floats(pixels):
    return pixels.astype(np.float32) / np.float32(255)


def _confidence(logits):
    return models.softmax(logits).max(axis=1)


def _among_five(logits, y):
    """Whether y is one of the five largest logits: "1" or "0", (n,)."""
    ahead = (logits > np.take_along_axis(logits, y[:, np.newaxis], axis=1)).sum(axis=1)
    return (ahead < 5).astype(int).astype(str)


def _texts(values, digits=6):
    return [f"{value:.{digits}g}" for value in values]


def round_to_8_bits(pixels, x_adv):
    """The adversarial images as uint8, rounded towards the original `pixels` (uint8).

    No value moves further from the original than in x_adv, so epsilon still holds.
    """
    change = x_adv.astype(np.float64) * 255 - pixels
    # A thousandth is float32's rounding: 2 / 255 comes as 1.99999 or 2.00001 levels.
    levels = np.trunc(change + np.copysign(1e-3, change))
    return (pixels + levels).astype(np.uint8)


def _too_long(folder, path):
    try:
        os.lstat(_png(folder, path))
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def _png(folder, path):
    return Path(folder, f"{path}.png")


def save(folder, paths, images):
    """Write uint8 images as PNG and return them as they are read back, uint8."""
    from common.imagenet import photos

    saved = []
    for path, image in zip(paths, images, strict=True):
        png = _png(folder, path)
        with files.writing(png):
            png.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(png) as temporary:
            photos.save(temporary, image)
        saved.append(photos.read(png, image.shape[0]))
    return np.stack(saved)
