"""Run a function over many batches, side by side: in threads here, or on a cluster.

    with engine.start(args.cluster) as run:
        for result in run(attack_batch, batches, prepare=read_batch):
            ...

An operation of TensorFlow has one thread, so a sum is taken in the same order wherever it is
computed.  At most `AHEAD` batches for each core are under way, so memory does not grow.
"""

import functools
import itertools
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress

from common.command import Failure

AHEAD = 2  # batches for each core: one in work, one waiting
MOST_THREADS = 8  # in this process: each batch in work needs its memory


def add_arguments(parser):
    parser.add_argument("--cluster", metavar="ADDRESS", help="of a Dask scheduler, or its file")


@contextmanager
def start(cluster=None):
    """Yield `run(function, batches, prepare=None, name=str)`, a generator of results in order.

    cluster: a scheduler's address or file; None: threads of this process.  Begin with this, since
    TensorFlow takes its number of threads before it computes anything.
    A result is function(batch), or function(prepare(batch)): `prepare` reads while a GPU computes.
    Both are functions of a module, which workers import, or `functools.partial` of such, called by
    several threads at once.  name(batch) is what a message calls it.  Raises `Failure` as
    `cluster.connect` does, and what is raised in a worker."""
    if cluster is not None:
        try:
            from common.run import cluster as dask_cluster
        except ImportError as error:
            raise Failure('--cluster needs Dask: run `pip install "dask[distributed]"`') from error
        with dask_cluster.connect(cluster) as pool:
            yield functools.partial(_run, *pool)
        return
    one_thread()
    count = min(cores(), MOST_THREADS)
    threads = ThreadPoolExecutor(count)
    try:
        yield functools.partial(_run, lambda *work, name: threads.submit(*work), lambda: count)
    finally:
        # Who interrupts does not wait for the batches in work: each thread ends with its own.
        threads.shutdown(wait=False, cancel_futures=True)


def cores():
    """How many cores this process may use (as Linux says), or there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_thread():
    """Have every operation of TensorFlow use one thread, unless it has computed already."""
    import tensorflow as tf

    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)


def _run(submit, cores, function, batches, prepare=None, name=str):
    """The one loop: submit ahead, hand back in order.  submit and cores: of the executor."""
    work = functools.partial(_work, function, prepare)
    batches, under_way = iter(batches), deque()
    while True:
        for batch in itertools.islice(batches, max(0, AHEAD * cores() - len(under_way))):
            under_way.append(submit(work, batch, name=name(batch)))
        if not under_way:
            return
        yield under_way.popleft().result()


_gpu = threading.Lock()  # it takes one batch at a time


def _work(function, prepare, batch):
    """One batch, in a thread here or in a worker."""
    import tensorflow as tf

    one_thread()
    prepared = batch if prepare is None else prepare(batch)
    with _gpu if tf.config.list_physical_devices("GPU") else nullcontext():
        return function(prepared)
