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

While a run is going on, each batch has a file of its own in the folder NAME.unfinished.  When all
are there they are joined, and the folder goes.  So a run that is interrupted, even killed, destroys
nothing, and a later one does only the batches that are missing.
"""

import csv
import hashlib
import json
import os
from collections import Counter
from contextlib import contextmanager, suppress

import numpy as np

from common import files, results
from common.command import Failure

COLUMNS = (
    "path", "y_pred", "confidence", "y_pred_adversarial", "confidence_adversarial",
    "linf", "l2", "distortion", "fools", "y_true", "top5", "top5_adversarial", "y_target", "steps",
    "y_pred_8bit", "confidence_8bit", "linf_8bit", "l2_8bit", "changed_8bit", "fools_8bit",
)  # fmt: skip
KEPT = 9  # photographs for the figure, three by three
REMEDY = "start again without --resume"
# A file name need not be valid UTF-8; this brings it into the file and back as it was.
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
# What the closing table averages, over the photographs that count as fooled there.
AVERAGED = {
    "fools": ("confidence_adversarial", "l2", "linf", "distortion", "steps"),
    "fools_8bit": ("l2_8bit", "changed_8bit", "confidence_8bit"),
}


def unfinished(output):
    """The folder of a run that is not complete: NAME.unfinished for NAME.csv."""
    return output.with_suffix(".unfinished")


@contextmanager
def locked(output):
    """Keep the unfinished run of `output` for this process; raise `Failure` if another has it.

    The lock is the operating system's and ends with the process, however that ends.  Where there
    are no such locks (Windows), nothing is locked.
    """
    folder = unfinished(output)
    with files.writing(folder):
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY) if os.name == "posix" else None
    try:
        if descriptor is not None and not _lock(descriptor, folder):
            shown = files.show(output)
            raise Failure(f"another run is writing {shown}: wait for it, or name another --output")
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


def described(settings, paths):
    """What a run is known by: its settings, for JSON, and a digest of its photographs' paths."""
    digest = hashlib.sha256("\0".join(paths).encode(errors="surrogateescape")).hexdigest()
    return {**settings, "photographs": digest}


def resume(output, run):
    """Which batches an interrupted run has left: a set of numbers, or None of a complete run.

    run: from `described`.  Raises `Failure` when the earlier run was another one.
    """
    folder, npz = unfinished(output), output.with_suffix(".npz")
    if (folder / "run.json").is_file():
        left = folder
        try:
            earlier = dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise Failure(f"{files.show(folder)} does not say what run it is: {REMEDY}") from error
    elif output.is_file() and npz.is_file():
        earlier, left = results.load(npz, remedy=REMEDY)["config"], output
    else:
        return set()
    differences = ", ".join(
        f"{key} was {json.dumps(earlier.get(key))} and is {json.dumps(value)}"
        for key, value in run.items()
        if key != "photographs" and earlier.get(key) != value
    )
    if not differences and earlier.get("photographs") != run["photographs"]:
        differences = "the photographs are not the same ones"
    if differences:
        raise Failure(f"cannot resume {files.show(left)}: {differences}; {REMEDY}")
    return None if left == output else {int(path.stem) for path in folder.glob("[0-9]*.npz")}


def begin(output, run):
    """Give up what an earlier run left unfinished, and say what this one is."""
    folder = unfinished(output)
    with files.writing(folder):
        for path in folder.iterdir():
            path.unlink()
    with files.replacing(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(run), encoding="utf-8")


def add(output, number, rows, skipped, figure):
    """Keep what came of a batch: its rows, the (path, reason) of what was skipped, and arrays of
    its first photographs for the figure, a row each (none: an empty dict)."""
    told = np.array(json.dumps([rows, skipped]))
    with files.replacing(unfinished(output) / f"{number:08d}.npz") as temporary:
        np.savez(temporary, told=told, **figure)


def read_batch(output, number):
    """(rows, skipped, figure): what `add` has kept."""
    path = unfinished(output) / f"{number:08d}.npz"
    figure = files.read_npz(path, holds="a batch of a run", remedy=REMEDY)
    try:
        rows, skipped = json.loads(str(figure.pop("told")))
    except (KeyError, ValueError) as error:
        raise Failure(f"{files.show(path)} is not a batch of a run: {REMEDY}") from error
    return rows, skipped, figure


def finish(output, run, count, image_shape):
    """Join all `count` batches into the CSV and the .npz; returns how many files were skipped.

    image_shape: of the photographs, for the .npz of a run none of whose photographs counts.
    """
    parts, paths, passed_over = [], [], 0
    with files.replacing(output) as temporary, open(temporary, "w", **ENCODING) as file:
        # Lines end as RFC 4180 has it, so that a name with either half of that is put in quotes.
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for number in range(count):
            rows, skipped, figure = read_batch(output, number)
            writer.writerows(rows)
            passed_over += len(skipped)
            if figure and len(paths) < KEPT:
                paths += [str(path) for path in figure.pop("paths")]
                parts.append(figure)
        file.flush()
        empty = dict.fromkeys(results.IMAGES, np.zeros((0, *image_shape), np.float32))
        empty |= dict.fromkeys(results.LABELS, np.zeros(0, np.int64))
        parts = parts or [empty]
        joined = {name: np.concatenate([part[name] for part in parts])[:KEPT] for name in parts[0]}
        # The .npz is in its place before the CSV is: complete is what has both.
        results.save(output.with_suffix(".npz"), config=run | {"paths": paths[:KEPT]}, **joined)
    for path in unfinished(output).iterdir():  # the folder itself is the lock: see `locked`
        path.unlink()
    return passed_over


def read(path):
    """Yield the rows of a finished CSV file as dicts of strings."""
    with open(path, **ENCODING) as file:
        yield from csv.DictReader(file)


def summary(rows, *, saved):
    """The closing table's lines, from all rows of a file.  saved: whether PNGs were written."""
    count, total, largest = Counter(), Counter(), 0.0
    for row in rows:
        count["photographs"] += 1
        count["counted"] += row["fools"] != ""
        largest = max(largest, float(row["linf"]))
        for fools, names in AVERAGED.items():
            if row[fools] == "1":
                count[fools] += 1
                total.update({name: float(row[name] or 0) for name in names})
        if row["y_true"] != "":
            count["labelled"] += 1
            for when in ("", "_adversarial"):
                count["top1" + when] += row["y_pred" + when] == row["y_true"]
                count["top5" + when] += row["top5" + when] == "1"

    def share(name, of="counted"):
        return count[name] / max(count[of], 1)

    def mean(name):
        return total[name] / max(count["fools_8bit" if name.endswith("8bit") else "fools"], 1)

    left_out = count["photographs"] - count["counted"]
    lines = [
        f"photographs          {count['photographs']:7d}",
        f"left out             {left_out:7d}  (wrong, or the target, before the attack)",
        f"fooled               {count['fools']:7d}  {share('fools'):6.1%}",
    ]
    if saved:
        lines.append(f"fooled after 8 bits  {count['fools_8bit']:7d}  {share('fools_8bit'):6.1%}")
    if count["fools"]:
        lines.append(f"mean confidence in the wrong label {mean('confidence_adversarial'):.1%}")
    lines.append(f"largest noise        {largest:7.5f}")
    if count["labelled"]:
        lines.append(f"with a known label   {count['labelled']:7d}   top-1   top-5")
        for name, when in (("before", ""), ("after", "_adversarial")):
            top1, top5 = (share(top + when, "labelled") for top in ("top1", "top5"))
            lines.append(f"  {name:26}  {top1:6.1%}  {top5:6.1%}")
    if total["steps"]:
        lines += [
            f"|r|_2, mean          {mean('l2'):7.4f}",
            f"|r|_inf, mean        {mean('linf'):7.4f}",
            f"distortion, mean     {mean('distortion'):7.5f}",
            f"steps, mean          {mean('steps'):7.1f}",
        ]
    if total["steps"] and count["fools_8bit"]:
        lines += [
            f"8 bits: |r|_2, mean  {mean('l2_8bit'):7.4f}",
            f"8 bits: changed      {mean('changed_8bit'):7.1%}  (of the values)",
            f"8 bits: confidence   {mean('confidence_8bit'):7.1%}  (mean)",
        ]
    return lines
