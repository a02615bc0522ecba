"""A running Dask cluster for engine.py, checked to be like this machine.

Dask restarts workers, runs a lost batch elsewhere, and gives up on one that kills its workers.
"""

import functools
import hashlib
import json
import logging
import pickle
import platform
import warnings
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from importlib import metadata

from distributed import Client, KilledWorker
from distributed.scheduler import NoWorkerError

from common import files, results
from common.command import Failure

CONNECT = 10  # seconds to reach a scheduler
JOIN = 60  # seconds for its first worker, which may still be loading its packages
SILENT = logging.CRITICAL + 1  # we say in one line what Dask would log in many
CODE = ("common", "logreg_softmax", "method1_noise_optimization", "method2_fgsm")
LOST = "the connection to the scheduler was lost: start it again"

logging.getLogger("distributed").setLevel(SILENT)


class Workers:
    """The workers of a cluster, to which engine.py gives its batches."""

    def __init__(self, client):
        self.client = client

    def cores(self):
        """How many batches they work on at a time; 1 while none is there."""
        try:
            return max(1, sum(self.client.nthreads().values()))
        except Exception as error:  # whatever Dask raises for a connection that is gone
            raise Failure(LOST) from error

    def submit(self, work, batch):
        # Pickled here, so that the scheduler need not import what the workers run.
        pickled = pickle.dumps((work, batch))
        return self.client.submit(_work, pickled, environment(), pure=False)

    def result(self, future, name):
        """The result of a future; raises what was raised there.  name: of its batch."""
        try:
            return future.result()
        except NoWorkerError as error:
            raise Failure("the cluster has no workers left") from error
        except KilledWorker as error:
            raise Failure(
                f"{name} ended every worker that tried it: is memory short, or does a file crash "
                "its decoder?"
            ) from error
        except CancelledError as error:
            raise Failure(LOST) from error


@contextmanager
def connect(cluster):
    """Yield the `Workers` of a running cluster, by its scheduler's address or scheduler file.

    Raises `Failure` where there is none, where it has no workers, or where scheduler or workers
    have not the code and versions of this process.
    """
    address = cluster if "://" in cluster else _read_scheduler_file(cluster)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Dask's on versions: `_check` says it in one line
            client = Client(address, timeout=CONNECT)
    except Exception as error:  # whatever Dask raises for an address, a network or another server
        # Left half made, it would close itself when it is collected: perhaps in the thread of the
        # next client, which would wait for it in vain.
        with suppress(ValueError):
            if (client := Client.current()).status == "connecting":
                client.close()
        raise Failure(
            f"no Dask scheduler answers at {address}: start `dask scheduler`, or mend --cluster"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=JOIN)
        except TimeoutError as error:
            raise Failure(
                f"the scheduler at {address} has no workers: start `dask worker {address}`"
            ) from error
        _check(client)
        yield Workers(client)


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


# What workers do ---------------------------------------------------------------------------------


def _work(pickled, expected):
    """One batch, in a worker."""
    _compare(environment(), expected, f"the worker on {platform.node()}")
    work, batch = pickle.loads(pickled)
    return work(batch)
