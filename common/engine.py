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
import hashlib
import itertools
import json
import logging
import os
import pickle
import platform
import signal
import threading
import warnings
from collections import deque
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from multiprocessing import resource_tracker

from common import command, files, results
from common.command import Failure

AHEAD = 2  # batches for each worker: one in work, one waiting
CONNECT = 10  # seconds to reach a scheduler
PATIENCE = 60  # seconds without any worker after which a run is given up
LOST = "the connection to the scheduler was lost: start it again"
CODE = ("common", "logreg_softmax", "method1_noise_optimization", "method2_fgsm")


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
        yield _run_here
        return
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise Failure(
            '--workers and --cluster need Dask: run `pip install "dask[distributed]"`'
        ) from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)
    client = None
    try:
        with _interrupts_held_back() as interrupts:
            client = _connect(cluster) if workers is None else _start_workers(workers)
        if interrupts:
            signal.raise_signal(signal.SIGINT)
        _check(client)
        yield functools.partial(_run_there, client)
    finally:
        with _interrupts_held_back():
            if client is not None:
                client.close()
                if workers is not None:
                    client.cluster.close()


@contextmanager
def _interrupts_held_back():
    """Yield a list that grows with each Ctrl-C, which does nothing else during the block.

    Threads started meanwhile, and the processes that they start, stay deaf to it: the terminal
    sends Ctrl-C to the workers too, but it is this process that ends them.
    """
    interrupts = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    # multiprocessing's own helper lifts the block when it is started, so it is started before.
    resource_tracker.ensure_running()
    handler = signal.signal(signal.SIGINT, lambda *_: interrupts.append(True))
    mask = getattr(signal, "pthread_sigmask", lambda *_: None)  # Windows has none
    mask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield interrupts
    finally:
        mask(signal.SIG_UNBLOCK, [signal.SIGINT])
        signal.signal(signal.SIGINT, handler)


def cores():
    """How many cores this process may use."""
    available = getattr(os, "sched_getaffinity", None)  # Linux alone
    return len(available(0)) if available else os.cpu_count() or 1


def _start_workers(count):
    from distributed import Client, LocalCluster

    # Together the workers use as many threads as there are cores.
    threads = str(max(1, cores() // count))
    cluster = LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=logging.CRITICAL + 1,
        memory_limit=0,  # Dask's share for each worker is less than TensorFlow may need
        scheduler_kwargs={"allowed_failures": 1},
        env={
            name: os.environ.get(name, threads)
            for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        },
    )
    return Client(cluster)


def _connect(cluster):
    from distributed import Client

    address = cluster if "://" in cluster else _read_scheduler_file(cluster)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Dask's on versions: `_check` says it in one line
            client = Client(address, timeout=CONNECT)
    except Exception as error:  # whatever Dask raises for an address, a network or another server
        raise Failure(
            f"no Dask scheduler answers at {address}: start `dask scheduler`, or mend --cluster"
        ) from error
    try:
        client.wait_for_workers(1, timeout=CONNECT)
    except TimeoutError as error:
        client.close()
        raise Failure(
            f"the scheduler at {address} has no workers: start `dask worker {address}`"
        ) from error
    return client


def _read_scheduler_file(path):
    remedy = "give --cluster as tcp://HOST:PORT, or the --scheduler-file of `dask scheduler`"
    files.check_input(path, remedy=remedy)
    try:
        with open(path, encoding="utf-8") as file:
            return str(json.load(file)["address"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Failure(f"{files.show(path)} is not a scheduler file: {remedy}") from error


def _check(client):
    """Raise `Failure` unless scheduler and workers have this project in the same versions."""
    expected = environment()
    try:
        found = client.run(environment) | {
            client.scheduler.address: client.run_on_scheduler(environment)
        }
    except Exception as error:  # what is missing there can show in many ways
        raise Failure(
            f"the cluster at {client.scheduler.address} cannot import this project "
            f"({files.reason(error)}): install this checkout there with its requirements"
        ) from error
    for address, versions in found.items():
        _compare(versions, expected, address)


def _compare(found, expected, address):
    different = [
        f"{name} {found.get(name)} and not {version}"
        for name, version in expected.items()
        if found.get(name) != version
    ]
    if different:
        raise Failure(
            f"{address} has {', '.join(different)}: install the same versions there as here"
        )


@functools.cache
def environment():
    """What results depend on, by name: package versions, and a digest of the project's code."""
    code = hashlib.sha256()
    for path in sorted(path for folder in CODE for path in (files.ROOT / folder).rglob("*.py")):
        code.update(path.read_text(encoding="utf-8").encode())
    return results.versions() | {
        "pillow": metadata.version("pillow"),
        "code": code.hexdigest()[:12],
    }


def _run_here(function, batches, prepare=None, name=str):
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


def _run_there(client, function, batches, prepare=None, name=str):
    from distributed import KilledWorker

    def submit(batch):
        # Pickled here, so that the scheduler need not import what the workers run.
        work = pickle.dumps((function, prepare, batch))
        return client.submit(_work, work, environment(), pure=False)

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


_one_at_a_time = threading.Lock()


def _work(work, expected):
    """One batch, in a worker.  With several threads, one computes while the others read."""
    _compare(environment(), expected, f"the worker on {platform.node()}")
    function, prepare, batch = pickle.loads(work)
    _choose_gpu()
    prepared = batch if prepare is None else prepare(batch)
    with _one_at_a_time:
        return function(prepared)


@functools.cache
def _choose_gpu():
    """Of this machine's GPUs, a process of `--workers` sees one: its number's."""
    from distributed import get_worker

    number = get_worker().name
    if not isinstance(number, int):  # of a cluster: its starter has dealt out the GPUs
        return

    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        own = gpus[number % len(gpus)]
        tf.config.set_visible_devices(own, "GPU")
        # Two workers on one GPU have to share its memory.
        tf.config.experimental.set_memory_growth(own, True)
