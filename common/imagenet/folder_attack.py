"""Attack a folder of photographs with any attack, batch by batch, on as many machines as wanted.

Batches are cut by file before anything is read, so the rows are the same whoever works on them.
Workers do what attack_batch.py says; this side alone writes the CSV file (rows.py) and the .npz
with the first photographs for the figure.
"""

import functools
import os
import sys
import time
from typing import NamedTuple

import numpy as np

from common import command, files, results
from common.command import Failure
from common.imagenet import networks, rows
from common.imagenet.attack_batch import KEPT, Batch, attack_batch, read_batch


class Outcome(NamedTuple):
    attacked: int
    skipped: int
    seconds: float


def find(images):
    """(folder, paths, skipped): see `photos.find`; (path, reason) for folders not opened.

    images: the files and folders to attack.  Raises `Failure` when there is no file.
    """
    from common.imagenet import photos

    skipped = []
    folder, paths = photos.find(images, lambda *problem: skipped.append(problem))
    if not paths:
        raise Failure(f"no image in {files.show(folder)}: it holds no file")
    return folder, paths, skipped


def check_save_images(save_images, images):
    """The folder for the PNGs may not lie among the photographs.  Raises `Failure`."""
    for folder in images:
        if folder.is_dir() and save_images.resolve().is_relative_to(folder.resolve()):
            raise Failure(
                f"--save-images {files.show(save_images)} lies in {files.show(folder)}: what is "
                "saved there would be taken for photographs; name a folder elsewhere"
            )
    if save_images.exists() and not save_images.is_dir():
        raise Failure(f"--save-images {files.show(save_images)} is not a folder")
    if not save_images.parent.is_dir():
        raise Failure(
            f"cannot write {files.show(save_images)}: the folder "
            f"{files.show(save_images.parent)} does not exist"
        )


def attack_folder(
    run, job, paths, y_true, y_target, output, *, settings, batch_size, resume=False, skipped=()
):
    """Attack all photographs, and write the rows to `output` and the first ones to an .npz.

    run: from `engine.start`.  job: an `attack_batch.Job`.  paths: all files, in order.  y_true:
    their labels, None where unknown.  y_target: the labels to reach, or None where the attack is
    to leave y_true.  output: a path ending in .csv; the .npz lies beside it.  settings: what the
    rows depend on, for JSON; `resume` goes on with a run of the same settings.  skipped: (path,
    reason) of what could not even be opened.

    Files that cannot be read are named on stderr.  Returns an `Outcome`.  Raises `Failure` when
    none can be read, `command.Interrupted` on Ctrl-C.
    """
    from tqdm import tqdm

    npz = output.with_suffix(".npz")
    done, kept = set(), None
    if resume:
        batch_of = {path: i // batch_size for i, path in enumerate(paths)}
        done, kept = rows.resume(output, npz, settings, batch_of, job.columns)
    first = FirstPhotographs(rows.partial(npz), settings, kept)
    if job.save_images:
        with files.writing(job.save_images):
            os.makedirs(job.save_images, exist_ok=True)

    def batches():
        for start in range(0, len(paths), batch_size):
            batch = range(start, min(start + batch_size, len(paths)))
            todo = [i for i in batch if paths[i] not in done]
            if todo:
                yield Batch(
                    [paths[i] for i in todo],
                    [y_true[i] for i in todo],
                    None if y_target is None else [y_target[i] for i in todo],
                    keep=len(first.paths) < KEPT,
                )

    began = time.perf_counter()
    attacked, skipped, waiting = 0, len(skipped), list(skipped)
    found = run(
        functools.partial(attack_batch, job),
        batches(),
        prepare=functools.partial(
            read_batch, job.folder, networks.side(job.network), job.save_images
        ),
        name=lambda batch: f"the batch that begins with {batch.paths[0]}",
    )
    bar = tqdm(total=len(paths), initial=len(done.intersection(paths)), unit="photo", disable=None)
    try:
        with bar:
            for batch_rows, unreadable, for_figure in found:
                if batch_rows and not attacked:
                    # What an interrupted run left is given up only now that this one works.
                    if not resume:
                        rows.start(output, npz)
                    first.save()
                attacked += len(batch_rows)
                if batch_rows:
                    first.add(for_figure)
                    rows.append(output, batch_rows)
                skipped += len(unreadable)
                waiting += unreadable
                # Where nothing can be read the run ends with one line, not one for every file.
                if attacked or done:
                    _report(waiting)
                    waiting.clear()
                bar.update(len(batch_rows) + len(unreadable))
    except KeyboardInterrupt as interrupt:
        if not attacked and not done:
            raise
        raise command.Interrupted(
            f"{files.show(rows.partial(output))} has {len(done) + attacked} rows; "
            "go on with --resume"
        ) from interrupt
    if not attacked and not done:
        (path, reason), *others = waiting
        more = f", and {len(others)} more" if others else ""
        raise Failure(f"no readable image in {job.folder}: skipped {path}: {reason}{more}")
    first.save()
    rows.finish(output, npz)
    return Outcome(attacked, skipped, time.perf_counter() - began)


def _report(skipped):
    """Name on stderr what is passed over and why, a line each."""
    from tqdm import tqdm

    # A name that is no valid UTF-8 must not end the run.
    encoding = sys.stderr.encoding or "utf-8"
    for path, reason in skipped:
        line = command.one_line(f"skipped {path}: {reason}")
        tqdm.write(line.encode(encoding, "replace").decode(encoding), file=sys.stderr)


class FirstPhotographs:
    """The first photographs that count, for the figure: at most `KEPT`, kept in a file.

    The file is written before the rows of the batch, and what is in it already is not taken
    again, so after an interruption nothing is missing and nothing double.
    """

    def __init__(self, path, settings, kept):
        self.path, self.settings = path, settings
        kept = dict(kept or {"config": {"paths": []}})
        self.paths = kept.pop("config")["paths"]
        self.arrays = kept

    def add(self, arrays):
        """arrays: as `attack_batch` returns them, or None."""
        if arrays is None:
            return
        new = [i for i, path in enumerate(arrays["paths"]) if path not in self.paths]
        new = new[: KEPT - len(self.paths)]
        if not new:
            return
        self.paths += [arrays["paths"][i] for i in new]
        added = {name: array[new] for name, array in arrays.items() if name != "paths"}
        if len(self.arrays.get("xs", ())):
            if self.arrays.keys() != added.keys():
                raise Failure(
                    f"{files.show(self.path)} does not hold the first photographs of such a run: "
                    f"{rows.REMEDY}"
                )
            added = {k: np.concatenate([self.arrays[k], added[k]]) for k in added}
        self.arrays = added
        self.save()

    def save(self):
        side = networks.side(self.settings["model"])
        empty = np.zeros((0, side, side, 3), np.float32)
        nothing = {"xs": empty, "noises": empty}
        nothing |= {name: [] for name in ("y_trues", "y_preds", "y_preds_adversarial")}
        config = self.settings | {"paths": self.paths}
        results.save(self.path, config=config, **(self.arrays or nothing))
