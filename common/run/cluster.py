"""A running Dask cluster for engine.py (common/CLUSTERS.md says how to start one), which restarts
workers, runs a lost batch elsewhere, and gives up on one that kills its workers."""

import functools
import hashlib
import json
import logging
import pickle
import platform
import secrets
import warnings
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path

from distributed import Client, KilledWorker
from distributed.scheduler import NoWorkerError

from common import files, results
from common.command import Failure

CONNECT, JOIN = 10, 60  # seconds for a scheduler to answer, and for its first worker to be ready
CODE = ("common", "logreg_softmax", "method1_noise_optimization", "method2_fgsm")

for name in ("distributed", "distributed.client"):  # which log in many lines what we say in one
    logging.getLogger(name).setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module="distributed")


@contextmanager
def connect(cluster):
    """Yield submit(work, batch, name) -> future, and cores(), for `engine._run`.  Raises `Failure`
    where there is no cluster, workers are missing or get lost, or have not the code and versions of
    this process, and for a batch that kills its workers."""
    with ExitStack() as stack:
        try:
            file = "://" not in cluster
            address = json.loads(Path(cluster).read_text())["address"] if file else cluster
            client = stack.enter_context(Client(address, timeout=CONNECT))
            client.wait_for_workers(1, timeout=JOIN)
            for run in (client.run_on_scheduler, client.run):
                run(_work, pickle.dumps((int, 0)), environment())
        except Failure:
            raise
        except Exception as error:  # a file, a network, other servers, a missing project
            raise Failure(
                f"no Dask cluster works at {cluster} ({type(error).__name__}: {error}): start "
                "`dask scheduler`, and `dask worker tcp://HOST:PORT` where this project is "
                "installed, and give --cluster the scheduler's address or file"
            ) from error
        executor = client.get_executor(pure=False)

        def submit(work, batch, name):
            # Pickled here, so that the scheduler need not import what the workers run.
            batch, key = pickle.dumps((work, batch)), (name, secrets.token_hex(8))
            return executor.submit(_work, batch, environment(), key=key)

        try:
            yield submit, lambda: max(1, sum(client.nthreads().values()))
        except KilledWorker as error:
            died = f"{error.task[0]} ended every worker that tried it"
            raise Failure(f"{died}: is memory short, or does a file crash its decoder?") from error
        except Exception as error:
            if client.status != "running" or isinstance(error, CancelledError | NoWorkerError):
                raise Failure(f"the cluster at {address} was lost: start it again") from error
            raise


@functools.cache
def environment():
    """What results depend on, by name: package versions, and a digest of the project's code."""
    code = [path for folder in CODE for path in sorted((files.ROOT / folder).rglob("*.py"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()
    return results.versions() | {"pillow": metadata.version("pillow"), "code": digest[:12]}


def _work(pickled, expected):
    """One batch, in a worker, which may have joined late and be of other versions."""
    for name, found in environment().items():
        if found != expected[name]:
            differs = f"{platform.node()} has {name} {found} and not {expected[name]}"
            raise Failure(f"{differs}: install the same versions there as here")
    work, batch = pickle.loads(pickled)
    return work(batch)
