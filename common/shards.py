"""Results that several workers make, each in files of its own, and worker 1 puts together.

An attack on one image knows nothing of the others, so the workers of `--strategy multiworker`
(common/distribution.py) need no connection: each attacks its share of the images and leaves
OUTPUT.worker-2-of-4.npz in the folder of the output, which they all share.  Worker 1 waits for
the files, checks that they are of this very run, merges them in the order of a single process,
and removes them.  The share of a worker depends on nothing but the number of workers, so one
that was killed can be started again and leaves the same files.
"""

import hashlib
import json
import time

import numpy as np

from common import command, files, models, results
from common.command import Failure

PATIENCE = 600
POLL = 0.2  # seconds between two looks at the folder


def add_arguments(parser, *, resume=True):
    """`--wait` and, where a script has none of its own, `--resume`."""
    parser.add_argument(
        "--wait",
        type=command.positive_float,
        default=PATIENCE,
        metavar="SECONDS",
        help="with --strategy multiworker: how long worker 1 waits for a worker that makes no "
        "progress",
    )
    if resume:
        parser.add_argument(
            "--resume",
            action="store_true",
            help="with --strategy multiworker: go on from what this worker has done already",
        )


def parse(parser, argv):
    """The arguments; --resume means something for several workers only."""
    args = parser.parse_args(argv)
    if args.resume and args.strategy != "multiworker":
        parser.error("--resume goes with --strategy multiworker")
    return args


def check_output(output, worker):
    """Raise `Failure` where the worker cannot write its files, before any work is done."""
    if worker.count > 1:
        files.check_output(path(output, worker))
    # The others do not touch what worker 1 writes.
    if worker.rank == 0:
        files.check_output(output)


def path(output, worker):
    """Where `worker` leaves its share of `output`."""
    number = f"worker-{worker.rank + 1}-of-{worker.count}"
    return output.with_name(f"{output.stem}.{number}{output.suffix}")


def mine(count, worker, block=1):
    """Which of `count` rows are the worker's: int64 indices in order.

    Blocks of that many rows are dealt out in turn, so every row is exactly one worker's.
    """
    rows = np.arange(count)
    return rows[rows // block % worker.count == worker.rank]


def sha256(path):
    """The SHA-256 of a file, in hexadecimal; raises `Failure` when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
    except OSError as error:
        raise Failure(f"cannot read {files.show(path)}: {files.reason(error)}") from error


def differences(found, expected):
    """In words, in which settings two runs differ; an empty string if in none."""
    return ", ".join(
        f"{key} was {json.dumps(found.get(key))} and is {json.dumps(value)}"
        for key, value in expected.items()
        if found.get(key) != value
    )


def wait(worker, shard_files, flaw, patience):
    """Wait until the shards of all other workers are there.

    shard_files(worker): the files in which that worker's progress shows.  flaw(worker): None when
    its shard is complete and belongs to this run, an empty string while it is not there, and
    otherwise what is wrong with it.  Raises `Failure` when one of them does not change for
    `patience` seconds.
    """
    waiting = {}
    others = [worker._replace(rank=rank) for rank in range(worker.count) if rank != worker.rank]
    state, since, wrong = {}, {}, {}
    while True:
        now = time.monotonic()
        for other in others:
            seen = [_state(path) for path in shard_files(other)]
            if other not in state or seen != state[other]:
                state[other], since[other] = seen, now
                waiting[other] = flaw(other)
        others = [other for other in others if waiting[other] is not None]
        if not others:
            return
        if not wrong:
            print(f"waiting for {_list(others)}", flush=True)
        for other in others:
            if waiting[other] and waiting[other] != wrong.get(other):
                print(f"the files of {other} do not count: {waiting[other]}", flush=True)
            wrong[other] = waiting[other]
        late = [other for other in others if now - since[other] > patience]
        if late:
            raise Failure(
                f"no progress of {_list(late)} for {patience:g} seconds: start "
                f"{'it' if len(late) == 1 else 'them'} and this one again with --resume"
            )
        time.sleep(POLL)


def _list(workers):
    numbers = ", ".join(str(worker.rank + 1) for worker in workers)
    return f"worker{'s' * (len(workers) > 1)} {numbers} of {workers[0].count}"


def _state(path):
    """What changes when a file does: None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def attack(worker, output, digits, settings, find, *, model, block, piece, args):
    """Attack digits, alone or as one of several workers.

    digits: arrays by the names of common/results.py (xs, y_trues, y_preds, indices and others),
    a row for each digit.  settings: what else the outcome depends on, for JSON.
    find(digits): attacks some of them; a dict with `noises`, `y_preds_adversarial` and further
    arrays, a row for each, and the seconds it took.
    block: as in `mine`: rows that stay together.  piece: a worker calls `find` with so many at
    a time and saves what it has after each.
    model: the name of the network, whose weights have to be the same for all workers.
    args: the command line, for --resume (go on from what this worker's shard holds already, if
    it is of the same run) and --wait.
    Returns (found, seconds) for all digits, the seconds being those of the slowest worker; None
    for a worker other than the first, whose part ends with its shard.
    """
    if worker.count == 1:
        return find(digits)
    count = len(digits["xs"])
    weights = sha256(models.weights_path(model))
    settings = settings | {"weights": weights, "versions": results.versions()}

    def read(other):
        """(shard, None), or (None, what is wrong with it)."""
        file = path(output, other)
        if not file.exists():
            return None, ""
        try:
            shard = results.load(file)
        except Failure as failure:
            return None, str(failure)
        different = differences(shard["config"], settings)
        if different:
            return None, f"made with other settings: {different}"
        rows = mine(count, other, block)[: len(shard["xs"])]
        for name, array in digits.items():
            if not np.array_equal(shard.get(name), array[rows]):
                return None, f"made from other digits ({name})"
        return shard, None

    def flaw(other):
        shard, wrong = read(other)
        short = shard is not None and len(shard["xs"]) < len(mine(count, other, block))
        return "" if short else wrong

    own = path(output, worker)
    rows = mine(count, worker, block)
    shard = read(worker)[0] if args.resume else None
    if shard is None:
        own.unlink(missing_ok=True)
    done, found = (0, {}) if shard is None else (len(shard["xs"]), dict(shard))
    seconds = found.pop("config", {}).get("seconds", 0)
    # A worker without a row has a shard too: an empty one.
    for start in range(done, len(rows), piece) if len(rows) else [0]:
        here = {name: array[rows[start : start + piece]] for name, array in digits.items()}
        more, taken = find(here)
        more, seconds = here | more, round(seconds + taken, 3)
        found = {k: np.concatenate([found[k], more[k]]) for k in more} if found else more
        results.save(own, **found, config=settings | {"seconds": seconds})
    if worker.rank:
        print(f"{worker} is done; worker 1 puts the results together")
        print(f"wrote {files.show(own)}")
        return None

    wait(worker, lambda other: [path(output, other)], flaw, args.wait)
    everyone = [worker._replace(rank=rank) for rank in range(worker.count)]
    shards = [results.load(path(output, other)) for other in everyone]
    order = np.argsort(np.concatenate([mine(count, other, block) for other in everyone]))
    names = set(shards[0]) - set(digits) - {"config"}
    found = {name: np.concatenate([shard[name] for shard in shards])[order] for name in names}
    return found, max(shard["config"]["seconds"] for shard in shards)


def remove(output, worker):
    """Remove the shards of all workers, once `output` is written."""
    for rank in range(worker.count if worker.count > 1 else 0):
        path(output, worker._replace(rank=rank)).unlink(missing_ok=True)
