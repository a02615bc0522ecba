"""The results of an attack on photographs: one CSV row each, so that nothing piles up in memory.

While a run is going on, its rows are in NAME.partial.csv and the first images, for the figure,
in NAME.partial.npz.  When it is done both take the place of the previous results.  So a run that
is interrupted, even killed, destroys nothing, and a later one can take up its rows.

    path                     from the folder of photographs, with "/" between its parts
    y_pred                   label of the photograph (index), as the network predicts it
    confidence               softmax probability of y_pred, 0 to 1
    y_pred_adversarial       label after the attack
    confidence_adversarial   softmax probability of y_pred_adversarial
    linf, l2                 largest and Euclidean size of the noise, pixels in [0, 1]
    fools                    1 the attack succeeded, 0 it did not, empty: not counted (see below)
    y_true                   label by the folder's name, empty where it does not tell
    top5                     1 when y_true is among the five most likely, before the attack
    top5_adversarial         the same after the attack
    y_pred_8bit              label of the saved 8-bit PNG, read back; empty when none was saved
    confidence_8bit          softmax probability of y_pred_8bit
    linf_8bit                largest size of the noise in the PNG
    fools_8bit               like fools, for the PNG

and from method 1, whose noise is a search's,

    y_target                 the label to reach
    distortion               sqrt(mean r²) of the noise r
    steps                    gradients the search took
    l2_8bit                  Euclidean size of the noise in the PNG
    changed_8bit             share of the PNG's values that are not the photograph's, 0 to 1

The attack succeeds when the label changes or, with a target, when it becomes the target.  Not
counted are photographs that the network got wrong before the attack, as far as the true label is
known, and those it took for the target already.
"""

import csv
import itertools
import json
import os
import re

from common import files, results
from common.command import Failure

COLUMNS = (
    "path",
    "y_pred",
    "confidence",
    "y_pred_adversarial",
    "confidence_adversarial",
    "linf",
    "l2",
    "fools",
    "y_true",
    "top5",
    "top5_adversarial",
    "y_pred_8bit",
    "confidence_8bit",
    "linf_8bit",
    "fools_8bit",
)
OF_METHOD_1 = (*COLUMNS, "y_target", "distortion", "steps", "l2_8bit", "changed_8bit")
# What a column other than the path holds, where it is not empty.
NUMBER = re.compile(r"\d+(\.\d+)?(e[-+]?\d+)?|nan|inf")
ALWAYS = COLUMNS[1:7]
REMEDY = "start again without --resume"
# A file name need not be valid UTF-8; this brings it into the file and back as it was.
ENCODING = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


def partial(path):
    """Where results lie until they are complete: NAME.partial.csv for NAME.csv."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def start(path, images_path):
    """Give up what an interrupted run left, so that a new one can begin; complete results stay."""
    # The rows go first: partial images without rows mean a run that has just begun.
    for left in (partial(path), partial(images_path)):
        with files.writing(left):
            left.unlink(missing_ok=True)


def resume(path, images_path, settings, batch_of, columns=COLUMNS):
    """Take up an interrupted run, or add to a complete one.

    settings: those of this run, for JSON.  batch_of: the number of its batch for each path.
    Returns (done, kept): the set of paths that have their row, and the arrays of the first
    images as `results.load` gives them, or None when there is nothing to take up.

    The rows of the last batch are dropped, since not all of them may have been written: the
    batch comes out the same once more.  Raises `Failure` when the earlier run had other settings.
    """
    if partial(images_path).exists():
        images, rows = partial(images_path), partial(path)
    else:
        # Killed between the two renames at the end, or complete, or never begun.
        images, rows = images_path, partial(path) if partial(path).exists() else path
    if not images.exists():
        if rows.exists():
            raise Failure(
                f"cannot resume {files.show(rows)}: {files.show(images)}, which holds the "
                f"settings of that run, is missing; {REMEDY}"
            )
        return set(), None
    kept = results.load(images, remedy=REMEDY)
    paths = kept["config"].get("paths")
    if not isinstance(paths, list) or len(paths) != len(kept["xs"]):
        raise Failure(f"{files.show(images)} does not say which photographs it holds: {REMEDY}")
    differences = ", ".join(
        f"{key} was {json.dumps(kept['config'].get(key))} and is {json.dumps(value)}"
        for key, value in settings.items()
        if kept["config"].get(key) != value
    )
    if differences:
        raise Failure(
            f"cannot resume {files.show(rows)}, which was made with other settings: {differences}"
        )

    done, last = set(), []
    with files.replacing(partial(path)) as temporary, open(temporary, "w", **ENCODING) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        earlier = read(rows, columns) if rows.exists() else ()
        for _, batch in itertools.groupby(earlier, lambda row: batch_of.get(row["path"])):
            writer.writerows(last)
            done.update(row["path"] for row in last)
            last = list(batch)
    return done, kept


def read(path, columns=COLUMNS):
    """Yield the complete rows of a CSV file as dicts of strings."""
    try:
        with open(path, **ENCODING) as file:
            # A row counts once its line has ended; inside quotes a line break ends nothing.
            reader = csv.reader(line for line in file if line.endswith("\n"))
            header = next(reader, None)
            if header is None:  # killed before the first line was complete
                return
            if tuple(header) != columns:
                raise Failure(
                    f"{files.show(path)} does not hold the rows of this script: name another "
                    f"--output, or {REMEDY}"
                )
            for values in reader:
                if len(values) != len(columns):
                    return
                row = dict(zip(columns, values, strict=True))
                for name, value in list(row.items())[1:]:
                    if not NUMBER.fullmatch(value) and (value or name in ALWAYS):
                        raise Failure(f"{files.show(path)}: {value[:40]!r} is no {name}; {REMEDY}")
                yield row
    except OSError as error:
        raise Failure(f"cannot read {files.show(path)}: {files.reason(error)}") from error
    except csv.Error as error:
        raise Failure(f"{files.show(path)} is not a CSV file ({error})") from error


def append(path, rows):
    """Append dicts, all with the same keys, to the partial CSV file."""
    with files.writing(partial(path)), open(partial(path), "a", **ENCODING) as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        writer.writerows(rows)


def finish(path, images_path):
    """The partial files become the results, the images first (see `resume`)."""
    for whole in (images_path, path):
        with files.writing(whole):
            os.replace(partial(whole), whole)


def summary(rows, *, saved):
    """The closing table's lines, from all rows of a file.  saved: whether PNGs were written."""
    n = counted = fooled = labelled = fooled_8bit = 0
    before, after, confidence, largest = [0, 0], [0, 0], 0.0, 0.0
    for row in rows:
        n += 1
        counted += row["fools"] != ""
        fooled += row["fools"] == "1"
        fooled_8bit += row["fools_8bit"] == "1"
        if row["fools"] == "1":
            confidence += float(row["confidence_adversarial"])
        largest = max(largest, float(row["linf"]))
        if row["y_true"] != "":
            labelled += 1
            before[0] += row["y_pred"] == row["y_true"]
            before[1] += row["top5"] == "1"
            after[0] += row["y_pred_adversarial"] == row["y_true"]
            after[1] += row["top5_adversarial"] == "1"

    def share(part):
        return f"{part:7d}  {part / counted:6.1%}" if counted else f"{part:7d}"

    lines = [
        f"photographs          {n:7d}",
        f"left out             {n - counted:7d}  (wrong, or the target, before the attack)",
        f"fooled               {share(fooled)}",
    ]
    if saved:
        lines.append(f"fooled after 8 bits  {share(fooled_8bit)}")
    if fooled:
        lines.append(f"mean confidence in the wrong label {confidence / fooled:.1%}")
    lines.append(f"largest noise        {largest:7.5f}")
    if labelled:
        lines.append(f"with a known label   {labelled:7d}   top-1   top-5")
        for name, (top1, top5) in (("before", before), ("after", after)):
            lines.append(f"  {name:26}  {top1 / labelled:6.1%}  {top5 / labelled:6.1%}")
    return lines


def noise_summary(rows, *, saved):
    """More lines for a search's rows: means over the photographs that reached their target."""
    sums, reached, reached_8bit = {}, 0, 0
    for row in rows:
        reached += row["fools"] == "1"
        reached_8bit += row["fools_8bit"] == "1"
        for name, counts in (
            ("l2", "fools"),
            ("linf", "fools"),
            ("distortion", "fools"),
            ("steps", "fools"),
            ("l2_8bit", "fools_8bit"),
            ("changed_8bit", "fools_8bit"),
            ("confidence_8bit", "fools_8bit"),
        ):
            if row[counts] == "1":
                sums[name] = sums.get(name, 0.0) + float(row[name])
    lines = []
    if reached:
        lines += [
            f"|r|_2, mean          {sums['l2'] / reached:7.4f}",
            f"|r|_inf, mean        {sums['linf'] / reached:7.4f}",
            f"distortion, mean     {sums['distortion'] / reached:7.5f}",
            f"steps, mean          {sums['steps'] / reached:7.1f}",
        ]
    if saved and reached_8bit:
        lines += [
            f"8 bits: |r|_2, mean  {sums['l2_8bit'] / reached_8bit:7.4f}",
            f"8 bits: changed      {sums['changed_8bit'] / reached_8bit:7.1%}  (of the values)",
            f"8 bits: confidence   {sums['confidence_8bit'] / reached_8bit:7.1%}  (mean)",
        ]
    return lines
