"""The results of an attack on photographs: one CSV row each, and the first nine for a figure.

    path                     from the folder of photographs, with "/" between its parts
    y_pred                   label of the photograph (index), as the network predicts it
    confidence               softmax probability of y_pred, 0 to 1
    y_pred_adversarial       label after the attack
    confidence_adversarial   softmax probability of y_pred_adversarial
    linf, l2                 largest and Euclidean size of the noise, pixels in [0, 1]
    distortion               sqrt(mean r²) of the noise r
    fools                    1 the attack succeeded, 0 it did not, empty: not counted (see below)
    y_true                   label by the folder's name or a list, empty where they do not tell
    top5                     1 when y_true is among the five most likely, before the attack
    top5_adversarial         the same after the attack
    y_target                 the label to reach, empty where the attack is to leave the label
    steps                    gradients that a search took, empty for a single step
    y_pred_8bit              label of the saved 8-bit PNG, read back; empty when none was saved
    confidence_8bit          softmax probability of y_pred_8bit
    linf_8bit, l2_8bit       largest and Euclidean size of the noise in the PNG
    changed_8bit             share of the PNG's values that are not the photograph's, 0 to 1
    fools_8bit               like fools, for the PNG

The attack succeeds when the label changes or, with a target, when it becomes the target.  Not
counted are photographs that the network got wrong before the attack, as far as the true label is
known, and those it took for the target already.

While a run is going on, each batch has a part of the CSV in the folder NAME.unfinished.  When all
are there they are joined, and the folder goes.  So a run that is interrupted, even killed, destroys
nothing, and a later one does only the batches that are missing.
"""

import csv
import itertools
import json
import os
from collections import Counter
from contextlib import contextmanager, suppress

import numpy as np

from common import files, results
from common.command import Failure
from common.networks import mnist

COLUMNS = (
    "path", "y_pred", "confidence", "y_pred_adversarial", "confidence_adversarial",
    "linf", "l2", "distortion", "fools", "y_true", "top5", "top5_adversarial", "y_target", "steps",
    "y_pred_8bit", "confidence_8bit", "linf_8bit", "l2_8bit", "changed_8bit", "fools_8bit",
)  # fmt: skip
KEPT = 9  # photographs for the figure, three by three
REMEDY = "start again without --resume"
# A file name need not be valid UTF-8; this brings it into the file and back as it was.
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
# What the closing table averages of a search, over the photographs, or PNGs, that fool.
MEANS = (
    ("|r|_2, mean          {:7.4f}", "fools", "l2"),
    ("|r|_inf, mean        {:7.4f}", "fools", "linf"),
    ("distortion, mean     {:7.5f}", "fools", "distortion"),
    ("steps, mean          {:7.1f}", "fools", "steps"),
    ("8 bits: |r|_2, mean  {:7.4f}", "fools_8bit", "l2_8bit"),
    ("8 bits: changed      {:7.1%}  (of the values)", "fools_8bit", "changed_8bit"),
    ("8 bits: confidence   {:7.1%}  (mean)", "fools_8bit", "confidence_8bit"),
)


def rows(photographs, before, after, noise, steps=None, png=None, change=None):
    """The rows of a batch, dicts without the columns of which there is nothing to say.

    photographs: (path, label, target) each, None what is not known or not given.  before, after,
    png: (labels, logits) by the network, png of the saved files.  noise, change: of the adversarial
    images and of the files, (n, side, side, 3).  steps: (n,) or None.
    """
    paths, labels, targets = zip(*photographs, strict=True)
    linf, l2, _ = _sizes(noise)
    columns = {
        "path": paths,
        "y_pred": before[0],
        "confidence": _texts(confidences(before), 6),
        "y_pred_adversarial": after[0],
        "confidence_adversarial": _texts(confidences(after), 6),
        # Five digits: the next ones are float32's rounding of x_adv - x.
        "linf": _texts(linf, 5),
        "l2": _texts(l2, 5),
        "distortion": _texts(l2 / np.sqrt(noise[0].size), 5),
        "fools": _fools(photographs, before, after),
        "y_true": labels,
        "top5": _among_five(before, labels),
        "top5_adversarial": _among_five(after, labels),
        "y_target": targets,
    }
    if steps is not None:
        columns["steps"] = steps
    if png is not None:
        names = "y_pred_8bit", "confidence_8bit", "linf_8bit", "l2_8bit", "changed_8bit"
        sizes = (_texts(size, 5) for size in _sizes(change))
        columns |= zip(names, (png[0], _texts(confidences(png), 6), *sizes), strict=True)
        columns["fools_8bit"] = _fools(photographs, before, png)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def confidences(answers):
    """The softmax probabilities of (labels, logits): the largest of each image, (n,)."""
    return mnist.softmax(answers[1]).max(axis=1)


def _fools(photographs, before, after):
    return [
        None
        if label not in (None, was) or was == target
        else int(now != was if target is None else now == target)
        for (_, label, target), was, now in zip(photographs, before[0], after[0], strict=True)
    ]


def _among_five(answers, labels):
    pairs = zip(answers[1], labels, strict=True)
    return [None if label is None else int((z > z[label]).sum() < 5) for z, label in pairs]


def _sizes(noise):
    """Largest and Euclidean size, and the share of values that are not 0: (n,) each."""
    flat = noise.reshape(len(noise), -1)
    return np.abs(flat).max(axis=1), np.linalg.norm(flat, axis=1), (flat != 0).mean(axis=1)


def _texts(values, digits):
    return [f"{value:.{digits}g}" for value in values]


def unfinished(output):
    """The folder of a run that is not complete: NAME.unfinished for NAME.csv."""
    return output.with_suffix(".unfinished")


@contextmanager
def locked(output):
    """Keep the unfinished run of `output` for this process; raise `Failure` if another has it.

    The operating system's lock ends with the process, however that ends; Windows has none.
    """
    folder = unfinished(output)
    with files.writing(folder):
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY) if os.name == "posix" else None
    try:
        if descriptor is not None and not _lock(descriptor, folder):
            shown = f"another run is writing {files.show(output)}"
            raise Failure(f"{shown}: wait for it, or name another --output")
        try:
            yield
        finally:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(descriptor, folder):
    """Whether the folder, opened as `descriptor`, is this process's from now on."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A run that has ended meanwhile removes its folder, and a third run makes it anew.
        return os.path.samestat(os.fstat(descriptor), os.stat(folder))
    except (BlockingIOError, FileNotFoundError):
        return False


def resume(output, run):
    """How many batches an interrupted run has left, from the first on; None of a complete run.

    run: its settings, for JSON.  Raises `Failure` when the earlier run was another one.
    """
    folder, npz = unfinished(output), output.with_suffix(".npz")
    settings = folder / "settings.json"
    if settings.is_file():
        left = folder
        try:
            earlier = dict(json.loads(settings.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise Failure(f"{files.show(folder)} does not say what run it is: {REMEDY}") from error
    elif output.is_file() and npz.is_file():
        earlier, left = results.load(npz, remedy=REMEDY)["config"], output
    else:
        return 0
    for name, value in run.items():
        if (was := earlier.get(name)) != value:
            change = f"{name} was {json.dumps(was)} and is {json.dumps(value)}"
            if name == "photographs":  # a digest of their paths
                change = "the photographs are not the same ones"
            raise Failure(f"cannot resume {files.show(left)}: {change}; {REMEDY}")
    if left == output:
        return None
    return next(number for number in itertools.count() if not _part(output, number).is_file())


def begin(output, run):
    """Give up what an earlier run left unfinished, and say what this one is."""
    clear(output)
    with files.replacing(unfinished(output) / "settings.json") as temporary:
        temporary.write_text(json.dumps(run), encoding="utf-8")


def clear(output):
    """Remove all that is unfinished, but for the folder itself, which is the lock."""
    with files.writing(unfinished(output)):
        for path in unfinished(output).iterdir():
            path.unlink()


def _part(output, number, suffix=".csv"):
    return unfinished(output) / f"{number:08d}{suffix}"


def add(output, number, rows, figure):
    """Keep what came of a batch: its rows, and arrays for the figure with a row each, or none."""
    if figure:
        with files.replacing(_part(output, number, ".npz")) as temporary:
            np.savez(temporary, **figure)
    with files.replacing(_part(output, number)) as temporary:
        list(_written(temporary, rows))


def _written(path, rows):
    """Write a CSV file, and yield its rows on the way."""
    with open(path, "w", **ENCODING) as file:
        # Lines end as RFC 4180 has it, so that a name with either half of that is put in quotes.
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow(row)
            yield row


def read(output, count=None):
    """Yield the rows of a finished CSV file, or of the first `count` batches: dicts of strings."""
    for path in [output] if count is None else [_part(output, i) for i in range(count)]:
        with open(path, **ENCODING) as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != list(COLUMNS):
                raise Failure(f"{files.show(path)} has no rows of photographs: {REMEDY}")
            yield from reader


def finish(output, run, count):
    """Join all `count` batches into the CSV and the .npz; returns what `summary` does."""
    with files.replacing(output) as temporary:
        table = summary(_written(temporary, read(output, count)))
        paths = sorted(unfinished(output).glob("[0-9]*.npz"))
        parts = [files.read_npz(path, holds="a batch of a run", remedy=REMEDY) for path in paths]
        figure = {name: np.concatenate([part[name] for part in parts])[:KEPT] for name in parts[0]}
        config = run | {"paths": figure.pop("paths").tolist()}
        # The .npz is in its place before the CSV is: complete is what has both.
        results.save(output.with_suffix(".npz"), config=config, **figure)
    clear(output)
    return table


def summary(rows):
    """The closing table's lines, and how many rows there are.  rows: those of a CSV file."""
    given, true, total, largest = Counter(), Counter(), Counter(), 0.0
    for row in rows:
        largest = max(largest, float(row["linf"]))
        given.update(name for name, text in row.items() if text != "")
        true.update(name for name, text in row.items() if text == "1")
        for when in ("", "_adversarial"):
            true["top1" + when] += row["y_pred" + when] == row["y_true"]
        for fools, name in (("fools", "confidence_adversarial"), *(mean[1:] for mean in MEANS)):
            if row[fools] == "1":
                total[name] += float(row[name] or 0)

    def share(name, of):
        return true[name] / max(given[of], 1)

    left_out = given["path"] - given["fools"]
    lines = [
        f"photographs          {given['path']:7d}",
        f"left out             {left_out:7d}  (wrong, or the target, before the attack)",
        f"fooled               {true['fools']:7d}  {share('fools', 'fools'):6.1%}",
    ]
    if given["y_pred_8bit"]:
        fooled = share("fools_8bit", "fools_8bit")
        lines.append(f"fooled after 8 bits  {true['fools_8bit']:7d}  {fooled:6.1%}")
    if true["fools"]:
        mean = total["confidence_adversarial"] / true["fools"]
        lines.append(f"mean confidence in the wrong label {mean:.1%}")
    lines.append(f"largest noise        {largest:7.5f}")
    if given["y_true"]:
        lines.append(f"with a known label   {given['y_true']:7d}   top-1   top-5")
        for name, when in (("before", ""), ("after", "_adversarial")):
            top1, top5 = (share(top + when, "y_true") for top in ("top1", "top5"))
            lines.append(f"  {name:26}  {top1:6.1%}  {top5:6.1%}")
    for line, fools, name in MEANS:
        if total["steps"] and true[fools]:
            lines.append(line.format(total[name] / true[fools]))
    return lines, given["path"]
