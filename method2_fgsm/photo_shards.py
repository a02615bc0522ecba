"""The rows of several workers, put together as one process would have written them.

The photographs are dealt out by file, a batch at a time, so that each worker's batches are those
of a single process, as long as every file can be read (one that cannot makes the worker's later
batches begin elsewhere: rounding may differ then, the rows do not).  A worker's shard is a pair
of files as a single run has it, OUTPUT.worker-2-of-4.csv and .npz, with their .partial files
until it is complete.  Its .npz also says which files it had to skip: a row that is missing
without that is an error.
"""

import hashlib
import os

import numpy as np

from common import files, results, shards
from common.command import Failure
from common.imagenet import streamed_results

REMEDY = "start that worker again without --resume"
# Of a shard's config, beside the settings: what it skipped, attacked, and the seconds that took.
ACCOUNT = ("skipped", "attacked", "seconds")


def settings(worker, folder, paths):
    """What a shard has to agree on with the others beside the settings of the run.

    The photographs are known by their names and sizes, so each machine may have its own copy.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            size = os.stat(os.path.join(folder, path)).st_size
        except OSError:
            size = -1
        digest.update(os.fsencode(path) + b"\0%d\0" % size)
    return {
        "workers": worker.count,
        "photographs": digest.hexdigest(),
        "versions": results.versions(),
    }


def paths_of(worker, output):
    """The files in which a worker's progress shows."""
    rows = shards.path(output, worker)
    complete = [rows, rows.with_suffix(".npz")]
    return complete + [streamed_results.partial(path) for path in complete]


def flaw(worker, output, expected):
    """None when the worker's shard is complete and of this run; see `shards.wait`."""
    rows, images = paths_of(worker, output)[:2]
    if not (rows.exists() and images.exists()):
        return ""
    try:
        config = results.load(images, remedy=REMEDY)["config"]
    except Failure as failure:
        return str(failure)
    different = shards.differences(config, expected)
    if different:
        return f"made with other settings: {different}"
    # The images of an interrupted run, beside the rows of an earlier one.
    return None if all(key in config for key in ACCOUNT) else ""


def remove(worker, output):
    """Remove one worker's shard."""
    for path in paths_of(worker, output):
        path.unlink(missing_ok=True)


def merge(worker, output, paths, block, config, kept):
    """Write `output` and the .npz beside it from the complete shards of all workers.

    paths: all the photographs, in order.  block: how many stayed together, as in `shards.mine`.
    config: the settings of a single process.  kept: how many images the .npz holds at most.
    Returns the workers' accounts: dicts with the keys `ACCOUNT`.
    """
    everyone = [worker._replace(rank=rank) for rank in range(worker.count)]
    images = [
        results.load(shards.path(output, other).with_suffix(".npz"), remedy=REMEDY)
        for other in everyone
    ]
    accounts = [{key: shard["config"][key] for key in ACCOUNT} for shard in images]
    skipped = [set(account["skipped"]) for account in accounts]
    if sum(map(len, skipped)) == len(paths):  # nothing to write
        return accounts
    rows = [streamed_results.read(shards.path(output, other)) for other in everyone]
    npz = output.with_suffix(".npz")
    with files.replacing(output) as temporary:
        streamed_results.write(temporary, _in_order(everyone, output, paths, block, rows, skipped))
        _merge_images(npz, images, paths, config, kept)
    return accounts


def _in_order(everyone, output, paths, block, rows, skipped):
    """Yield the rows in the order of `paths`; each has to be where it was dealt to."""
    for i, path in enumerate(paths):
        rank = i // block % len(everyone)
        if path in skipped[rank]:
            continue
        row = next(rows[rank], None)
        if row is None or row["path"] != path:
            shard = files.show(shards.path(output, everyone[rank]))
            raise Failure(f"{shard} lacks the row of {path}: {REMEDY}")
        yield row
    for other, rest in zip(everyone, rows, strict=True):
        if next(rest, None) is not None:
            shard = files.show(shards.path(output, other))
            raise Failure(f"{shard} holds rows too many: {REMEDY}")


def _merge_images(npz, images, paths, config, kept):
    """The first images of all: among each worker's first there are all that it has of them."""
    place = {path: i for i, path in enumerate(paths)}
    names = [path for shard in images for path in shard["config"]["paths"]]
    order = sorted(range(len(names)), key=lambda i: place[names[i]])[:kept]
    # A shard without an image lacks the arrays that go with them.
    full = [shard for shard in images if len(shard["xs"])] or images[:1]
    arrays = {
        key: np.concatenate([shard[key] for shard in full])[order]
        for key in full[0]
        if key != "config"
    }
    results.save(npz, **arrays, config=config | {"paths": [names[i] for i in order]})
