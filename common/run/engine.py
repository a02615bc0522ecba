"""Run a function over many batches, side by side: in threads here, or on a cluster.

    with engine.start(args.cluster) as run:
        for result in run(attack_batch, batches, prepare=read_batch):
            ...

Each batch is worked on by one core: an operation of TensorFlow has one thread, and there are as
many batches at a time as cores.  So a sum is taken in the same order wherever and beside whatever
it is computed.  The results come in the order of the batches, which are taken from their iterable
as they are needed: at most `AHEAD` for each core are under way, so memory does not grow with
their number.

Dask (`pip install "dask[distributed]"`) shares the batches among machines.
common/README.md says how to start a cluster.
"""

import ctypes
import functools
import itertools
import os
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

from common import files
from common.command import Failure

AHEAD = 2  # batches for each core: one in work, one waiting
MOST_THREADS = 8  # in this process: each batch in work needs its memory


def add_arguments(parser):
    """`--cluster`."""
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="share the work on a Dask cluster: tcp://HOST:PORT, or its scheduler file",
    )


@contextmanager
def start(cluster=None):
    """Yield `run(function, batches, prepare=None, name=str)`, a generator of results in order.

    cluster: a scheduler's address or file.  Without it the work is done by threads of this process.
    Begin with this, since TensorFlow takes its number of threads before it computes anything.

    A result is function(batch), or function(prepare(batch)), where `prepare` is the reading, which
    goes on while a GPU computes another batch.  Both are functions of a module (not of a script)
    or `functools.partial` of such, since workers import them, and are called by several threads at
    once.  name(batch) is what a message calls it.
    Raises `Failure` where there is no Dask, no cluster, or a different one, and for a batch that
    kills its workers.  What is raised in a worker is raised here.  All threads that were started
    have ended when the block ends.
    """
    if cluster is None:
        if not one_thread():
            print(
                "TensorFlow has begun with several threads for an operation: rows may differ in "
                "their last digit from those of a new process",
                file=sys.stderr,
            )
        pool = _Threads(min(cores(), MOST_THREADS))
        try:
            yield functools.partial(_run, pool)
        finally:
            pool.close()
        return
    try:
        from common.run import cluster as dask_cluster
    except ImportError as error:
        raise Failure('--cluster needs Dask: run `pip install "dask[distributed]"`') from error
    except Exception as error:  # Dask reads all files of settings when it is imported
        raise Failure(f"Dask does not start: {files.reason(error)}") from error
    with dask_cluster.connect(cluster) as pool:
        yield functools.partial(_run, pool)


def cores():
    """How many cores this process may use."""
    available = getattr(os, "sched_getaffinity", None)  # Linux alone
    return len(available(0)) if available else os.cpu_count() or 1


def one_thread():
    """Have every operation of TensorFlow use one thread; returns whether it does.

    Then sums are taken in the same order whatever the number of cores.  TensorFlow takes the
    number before its first operation, and no other afterwards.
    """
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
    except RuntimeError:
        return os.environ.get("TF_NUM_INTRAOP_THREADS") == "1"
    return True


def _run(pool, function, batches, prepare=None, name=str):
    """The one loop: submit ahead, hand back in order."""
    work = functools.partial(_work, function, prepare)
    batches, under_way = iter(batches), deque()
    while True:
        room = AHEAD * pool.cores() - len(under_way)
        for batch in itertools.islice(batches, max(0, room)):
            under_way.append((pool.submit(work, batch), name(batch)))
        if not under_way:
            return
        yield pool.result(*under_way.popleft())


def _work(function, prepare, batch):
    """One batch, in a thread here or in a worker."""
    one_thread()
    prepared = batch if prepare is None else prepare(batch)
    with _gpu():
        return function(prepared)


_one_at_a_time = threading.Lock()


def _gpu():
    """What a thread holds while it computes: a GPU takes one batch at a time."""
    import tensorflow as tf

    return _one_at_a_time if tf.config.list_physical_devices("GPU") else nullcontext()


class _Threads:
    """Threads of this process, with the methods of `cluster.Workers`."""

    def __init__(self, count):
        self.count, self.at_work = count, set()
        self.pool = ThreadPoolExecutor(count)

    def cores(self):
        return self.count

    def submit(self, work, batch):
        return self.pool.submit(self._work, work, batch)

    def _work(self, work, batch):
        thread = threading.get_ident()
        self.at_work.add(thread)
        try:
            return work(batch)
        finally:
            self.at_work.discard(thread)

    def result(self, future, name):
        return future.result()

    def close(self):
        """End what is still at work, because of Ctrl-C or an error, after its next operation."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        for thread in tuple(self.at_work):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt)
            )
        self.pool.shutdown()
