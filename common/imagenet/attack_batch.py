"""One batch of photographs: read, attacked, saved as 8-bit PNGs, and looked at again.

This is what a worker does for folder_attack.py, in this process or on another machine.
"""

import errno
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import engine, files, models
from common.command import Failure
from common.imagenet import networks, rows

KEPT = 9  # photographs for the figure, three by three


class Job(NamedTuple):
    """What is done to each batch.  Workers get it too: paths are absolute, functions importable."""

    attack: Callable  # attack(model, x, y) -> x_adv, or (x_adv, steps); y: to leave, or to reach
    network: str
    weights: str | None  # a file of the network's weights
    weights_sha256: str | None  # what it has to be, on every machine
    folder: str  # of the photographs
    columns: tuple = rows.COLUMNS  # of the rows; rows.OF_METHOD_1 where the attack counts steps
    save_images: str | None = None  # folder of the PNGs
    to_8_bits: Callable | None = None  # to_8_bits(model, pixels, x_adv, y) -> uint8, or rounded
    for_figure: Callable | None = None  # for_figure(model, x, y) -> more arrays for the first ones


class Batch(NamedTuple):
    paths: list  # from the folder
    y_true: list  # labels, None where unknown
    y_target: list | None  # the labels to reach, or None where the attack is to leave y_true
    keep: bool  # whether the first photographs for the figure are still looked for


@engine.once
def load_network(name, weights, sha256):
    """The network, loaded once a process; `weights` has to have that SHA-256 on every machine."""
    if weights and files.sha256(weights) != sha256:
        raise Failure(f"{weights} is another file on {platform.node()}: copy it there from here")
    return networks.load(name, weights and Path(weights))


def read_batch(folder, side, save_images, batch):
    """Read the photographs of a `Batch`: (the readable part of it, uint8 pixels, skipped).

    side: of the squares they are cut to, in pixels.
    Skipped are those, too, whose PNG in `save_images`, if that is not None, would have a name
    longer than the system takes.
    """
    from common.imagenet import photos

    too_long = [path for path in batch.paths if save_images and _too_long(save_images, path)]
    paths = [path for path in batch.paths if path not in too_long]
    paths, pixels, skipped = photos.read_batch(folder, paths, side)
    skipped += [(path, "with .png added its name is too long to be saved") for path in too_long]
    place = {path: i for i, path in enumerate(batch.paths)}

    def of_readable(labels):
        return None if labels is None else [labels[place[path]] for path in paths]

    readable = Batch(paths, of_readable(batch.y_true), of_readable(batch.y_target), batch.keep)
    return readable, pixels, skipped


def attack_batch(job, prepared):
    """Attack a batch, save its PNGs, and look at what was saved.

    prepared: from `read_batch`.  Returns its rows, the (path, reason) of what was skipped, and,
    where the batch is to `keep` them, a dict of the paths and arrays of the first photographs.
    """
    (paths, *_), _, skipped = prepared
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
    paths, y_true, y_target, keep = batch
    model = load_network(job.network, job.weights, job.weights_sha256)
    x = _floats(pixels)
    logits = models.predict(model, x)
    y_pred = logits.argmax(axis=1)
    known = np.array([label is not None for label in y_true])
    y = np.array([p if t is None else t for t, p in zip(y_true, y_pred, strict=True)], np.int64)
    y_attacked = y if y_target is None else np.array(y_target, np.int64)
    x_adv = job.attack(model, x, y_attacked)
    x_adv, steps = x_adv if isinstance(x_adv, tuple) else (x_adv, None)
    logits_adv = models.predict(model, x_adv)
    y_adv = logits_adv.argmax(axis=1)
    counted = (y == y_pred) & (True if y_target is None else y_pred != y_attacked)

    def fools(labels):
        succeeded = labels != y_pred if y_target is None else labels == y_attacked
        return np.where(counted, succeeded.astype(int).astype(str), "")

    noise = x_adv - x
    l2 = _l2(noise)
    columns = dict.fromkeys(job.columns, [""] * len(paths)) | {
        "path": paths,
        "y_pred": y_pred,
        "confidence": _texts(_confidence(logits)),
        "y_pred_adversarial": y_adv,
        "confidence_adversarial": _texts(_confidence(logits_adv)),
        # Five digits: the next ones are float32's rounding of x_adv - x.
        "linf": _texts(np.abs(noise).max(axis=(1, 2, 3)), 5),
        "l2": _texts(l2, 5),
        "fools": fools(y_adv),
        "y_true": np.where(known, y.astype(str), ""),
        "top5": np.where(known, _among_five(logits, y), ""),
        "top5_adversarial": np.where(known, _among_five(logits_adv, y), ""),
    }
    if steps is not None:
        columns |= {
            "y_target": y_attacked,
            "distortion": _texts(l2 / np.sqrt(noise[0].size), 5),
            "steps": steps,
        }
    if job.save_images:
        if job.to_8_bits is None:
            images = round_to_8_bits(pixels, x_adv)
        else:
            images = job.to_8_bits(model, pixels, x_adv, y_attacked)
        saved = save(job.save_images, paths, images)
        logits_8bit = models.predict(model, _floats(saved))
        levels = saved.astype(int) - pixels
        columns |= {
            "y_pred_8bit": logits_8bit.argmax(axis=1),
            "confidence_8bit": _texts(_confidence(logits_8bit)),
            "linf_8bit": _texts(np.abs(levels).max(axis=(1, 2, 3)) / 255, 5),
            "fools_8bit": fools(logits_8bit.argmax(axis=1)),
        }
        if steps is not None:
            columns["l2_8bit"] = _texts(_l2(levels / 255), 5)
            columns["changed_8bit"] = _texts((levels != 0).mean(axis=(1, 2, 3)), 5)
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
    if steps is not None:
        first |= {"y_targets": y_attacked[chosen], "steps": steps[chosen]}
    if job.for_figure:
        first |= job.for_figure(model, x[chosen], y_attacked[chosen])
    return batch_rows, skipped, first


def _l2(noise):
    return np.linalg.norm(noise.reshape(len(noise), -1), axis=1)


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
