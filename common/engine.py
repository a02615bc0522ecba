"""Run a function over many batches: in this process, in several, or on a Dask cluster.

    with engine.start(args.workers, args.cluster) as run:
        for result in run(attack_batch, batches, prepare=read_batch):
            ...

The results come in the order of the batches, and are the same wherever they were computed.
Batches are taken from their iterable as they are needed: at most `AHEAD` for each worker are
under way, so memory does not grow with their number.

Dask (`pip install "dask[distributed]"`) schedules: a worker that dies is started anew and its
batch runs again.  common/README.md says how to start a cluster.
"""

import functools
import itertools
import os
import pickle
from collections import deque
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager

from common import command
from common.command import Failure

AHEAD = 2  # batches for each worker: one in work, one waiting
PATIENCE = 60  # seconds without any worker after which a run is given up
LOST = "the connection to the scheduler was lost: start it again"


def add_arguments(parser):
    """`--workers` and `--cluster`, of which at most one can be given."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=command.positive_int, metavar="N", help="share the work among N processes"
    )
    where.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="share it on a Dask cluster: tcp://HOST:PORT of its scheduler, or a scheduler file",
    )


@contextmanager
def start(workers=None, cluster=None):
    """Yield `run(function, batches, prepare=None, name=str)`, a generator of results in order.

    workers: how many processes on this machine.  cluster: a scheduler's address or file.  Without
    either the work is done in this process.

    A result is function(batch), or function(prepare(batch)), where `prepare` is the reading that
    may go on beside the computing.  Both are functions of a module (not of a script) or
    `functools.partial` of such, since workers import them.  name(batch) is what a message calls it.
    Raises `Failure` where there is no Dask, no cluster, or a different one, and for a batch that
    kills its workers.  What is raised in a worker is raised here.  All processes that were started
    have ended when the block ends.
    """
    if workers is None and cluster is None:
        yield _run_in_this_process
        return
    try:
        from common import cluster as dask_cluster
    except ImportError as error:
        raise Failure(
            '--workers and --cluster need Dask: run `pip install "dask[distributed]"`'
        ) from error
    with dask_cluster.start(workers) if workers else dask_cluster.connect(cluster) as client:
        yield functools.partial(_run_on_cluster, client)


def cores():
    """How many cores this process may use."""
    available = getattr(os, "sched_getaffinity", None)  # Linux alone
    return len(available(0)) if available else os.cpu_count() or 1


def _run_in_this_process(function, batches, prepare=None, name=str):
    if prepare is None:
        yield from map(function, batches)
        return
    with ThreadPoolExecutor(1) as reader:
        batches = iter(batches)
        ahead = deque(reader.submit(prepare, batch) for batch in itertools.islice(batches, 1))
        while ahead:
            prepared = ahead.popleft().result()
            ahead.extend(reader.submit(prepare, batch) for batch in itertools.islice(batches, 1))
            yield function(prepared)


def _run_on_cluster(client, function, batches, prepare=None, name=str):
    from distributed import KilledWorker

    from common import cluster

    def submit(batch):
        # Pickled here, so that the scheduler need not import what the workers run.
        work = pickle.dumps((function, prepare, batch))
        return client.submit(cluster.work, work, cluster.environment(), pure=False)

    batches = iter(batches)
    under_way = deque()
    while True:
        room = AHEAD * max(1, _count_workers(client)) - len(under_way)
        for batch in itertools.islice(batches, max(0, room)):
            under_way.append((batch, submit(batch)))
        if not under_way:
            return
        batch, future = under_way.popleft()
        try:
            result = _result(client, future)
        except KilledWorker:
            # Another one in the same worker may have been to blame, so: again, and alone.
            others = [other for other, _ in under_way]
            client.cancel([future for _, future in under_way])
            under_way.clear()
            try:
                result = _result(client, submit(batch))
            except KilledWorker as error:
                raise Failure(
                    f"{name(batch)} ended every worker that tried it: is memory short, or does a "
                    "file crash its decoder?"
                ) from error
            under_way.extend((other, submit(other)) for other in others)
        del future
        yield result


def _result(client, future):
    """The result of a future; raises what was raised there, and `Failure` where nobody is left."""
    import distributed

    while not future.done():
        try:
            distributed.wait(future, timeout=PATIENCE)
        except TimeoutError as error:
            if not _count_workers(client):
                raise Failure(f"no worker has been left for {PATIENCE} seconds") from error
    try:
        return future.result()
    except CancelledError as error:
        raise Failure(LOST) from error


def _count_workers(client):
    try:
        return len(client.nthreads())
    except Exception as error:  # whatever Dask raises for a connection that is gone
        raise Failure(LOST) from error
