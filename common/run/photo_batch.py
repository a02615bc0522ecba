"""What a worker does with one batch of photographs: read, attack, save as 8-bit PNGs, look again.

A photograph's row is made here, once, and goes to the CSV file as it is (rows.py).
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import files
from common.networks import mnist, own_model
from common.run import photo_rows, photos


class Job(NamedTuple):
    """What is done to each batch.  Workers get it too: paths are absolute, functions importable."""

    attack: Callable  # attack(model, x, y) -> x_adv, or (x_adv, steps); y: to leave, or to reach
    network: own_model.Network  # its path that of --weights, or of a .keras file
    folder: str  # of the photographs
    save_images: str | None  # folder of the PNGs
    to_8_bits: Callable | None  # to_8_bits(model, pixels, x_adv, y) -> uint8, or rounded
    for_figure: Callable | None  # for_figure(model, x, y) -> more arrays for the first ones


class Batch(NamedTuple):
    paths: list  # from the folder
    y_true: np.ndarray  # int64 labels, -1 where unknown
    y_target: np.ndarray | None  # int64 labels to reach, None where the attack is to leave y_true
    keep: bool  # whether photographs for the figure are still looked for

    def rows(self, which):
        """Some photographs of the batch."""
        y_target = None if self.y_target is None else self.y_target[which]
        paths = [self.paths[i] for i in which]
        return Batch(paths, self.y_true[which], y_target, self.keep)


class Look(NamedTuple):
    """What the network says of images."""

    labels: np.ndarray  # int64 (n,)
    confidences: np.ndarray  # (n,) softmax probabilities of the labels
    logits: np.ndarray  # (n, classes)


def read(job, batch):
    """The readable photographs of a `Batch`: (that part of it, uint8 pixels, skipped).

    Skipped are (path, reason), also where the PNG to be saved would have a name longer than the
    system takes.
    """
    long = [path for path in batch.paths if job.save_images and _too_long(job.save_images, path)]
    paths = [path for path in batch.paths if path not in long]
    paths, pixels, skipped = photos.read_batch(job.folder, paths, job.network.shape[:2])
    skipped += [(path, "with .png added its name is too long to be saved") for path in long]
    which = [i for i, path in enumerate(batch.paths) if path in paths]
    return batch.rows(which), pixels, skipped


def attack(job, prepared):
    """Attack what was read, save its PNGs, and look at original, adversarial image and PNG.

    prepared: from `read`.  Returns rows (dicts of strings), where the batch is to `keep` them the
    arrays for the figure, else an empty dict, and the (path, reason) of what was skipped.
    """
    batch, pixels, skipped = prepared
    if not batch.paths:
        return [], {}, skipped
    model, judge = own_model.load(job.network)
    x = _floats(pixels)
    before = look(model, judge, x)
    y = np.where(batch.y_true < 0, before.labels, batch.y_true)
    aim = y if batch.y_target is None else batch.y_target
    x_adv = job.attack(model, x, aim)
    x_adv, steps = x_adv if isinstance(x_adv, tuple) else (x_adv, None)
    after = look(model, judge, x + (x_adv - x))  # as it is saved
    counted = y == before.labels
    if batch.y_target is not None:
        counted &= before.labels != aim

    def fools(labels):
        succeeded = labels != before.labels if batch.y_target is None else labels == aim
        return np.where(counted, succeeded.astype(int).astype(str), "")

    columns = {
        **_columns(batch, before, after, x_adv - x),
        "fools": fools(after.labels),
        "steps": [""] * len(x) if steps is None else steps,
    }
    if job.save_images:
        to_8_bits = job.to_8_bits or round_to_8_bits
        saved = save(job.save_images, batch.paths, to_8_bits(model, pixels, x_adv, aim))
        after_8_bits = look(model, judge, _floats(saved))
        columns |= _columns_8_bits(after_8_bits, (saved.astype(int) - pixels) / 255)
        columns["fools_8bit"] = fools(after_8_bits.labels)
    empty = [""] * len(x)
    found = [
        {name: str(columns.get(name, empty)[i]) for name in photo_rows.COLUMNS}
        for i in range(len(x))
    ]
    first = np.flatnonzero(counted)[: photo_rows.KEPT] if batch.keep else []
    if not len(first):
        return found, {}, skipped
    figure = {
        "paths": np.array(batch.paths)[first],
        "xs": x[first],
        "noises": (x_adv - x)[first],
        "y_trues": y[first],
        "y_preds": before.labels[first],
        "y_preds_adversarial": after.labels[first],
        "confidences": before.confidences[first],
        "confidences_adversarial": after.confidences[first],
    }
    if batch.y_target is not None:
        figure["y_targets"] = aim[first]
    if steps is not None:
        figure["steps"] = steps[first]
    if job.for_figure:
        figure |= job.for_figure(model, x[first], aim[first])
    return found, figure, skipped


def look(model, judge, x):
    """What the network says of images, float32 (n, side, side, 3) in [0, 1]: a `Look`."""
    labels, logits = own_model.answers(model, judge, x)
    return Look(labels, mnist.softmax(logits).max(axis=1), logits)


def _columns(batch, before, after, noise):
    """The columns of photographs and their adversarial images, but for those of the search."""
    known, l2 = batch.y_true >= 0, _l2(noise)

    def where_known(values):
        return np.where(known, np.asarray(values).astype(int).astype(str), "")

    return {
        "path": batch.paths,
        "y_pred": before.labels,
        "confidence": _texts(before.confidences, 6),
        "y_pred_adversarial": after.labels,
        "confidence_adversarial": _texts(after.confidences, 6),
        # Five digits: the next ones are float32's rounding of x_adv - x.
        "linf": _texts(np.abs(noise).max(axis=(1, 2, 3)), 5),
        "l2": _texts(l2, 5),
        "distortion": _texts(l2 / np.sqrt(noise[0].size), 5),
        "y_true": where_known(batch.y_true),
        "top5": where_known(_among_five(before.logits, batch.y_true)),
        "top5_adversarial": where_known(_among_five(after.logits, batch.y_true)),
        "y_target": [""] * len(noise) if batch.y_target is None else batch.y_target,
    }


def _columns_8_bits(after, noise):
    """The columns of the saved PNGs, whose noise is float64 (n, side, side, 3)."""
    return {
        "y_pred_8bit": after.labels,
        "confidence_8bit": _texts(after.confidences, 6),
        "linf_8bit": _texts(np.abs(noise).max(axis=(1, 2, 3)), 5),
        "l2_8bit": _texts(_l2(noise), 5),
        "changed_8bit": _texts((noise != 0).mean(axis=(1, 2, 3)), 5),
    }


def _l2(noise):
    return np.linalg.norm(noise.reshape(len(noise), -1), axis=1)


def _floats(pixels):
    return pixels.astype(np.float32) / np.float32(255)


def _among_five(logits, y):
    """Whether y is one of the five largest logits: bool (n,)."""
    return (logits > np.take_along_axis(logits, y[:, np.newaxis], axis=1)).sum(axis=1) < 5


def _texts(values, digits):
    return [f"{value:.{digits}g}" for value in values]


def round_to_8_bits(model, pixels, x_adv, y):
    """The adversarial images as uint8, rounded towards the original `pixels` (uint8).

    No value moves further from the original than in x_adv, so epsilon still holds.
    """
    change = x_adv.astype(np.float64) * 255 - pixels
    # A thousandth is float32's rounding: 2 / 255 comes as 1.99999 or 2.00001 levels.
    levels = np.trunc(change + np.copysign(1e-3, change))
    return (pixels + levels).astype(np.uint8)


def _too_long(folder, path):
    try:
        os.lstat(Path(folder, f"{path}.png"))
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def save(folder, paths, images):
    """Write uint8 images as PNG and return them as they are read back, uint8."""
    saved = []
    for path, image in zip(paths, images, strict=True):
        png = Path(folder, f"{path}.png")
        with files.writing(png):
            png.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(png) as temporary:
            photos.save(temporary, image)
        saved.append(photos.read(png, image.shape[:2]))
    return np.stack(saved)
