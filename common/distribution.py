"""One process, all GPUs of a machine, or several machines: what `--strategy` means.

    none          this process, as TensorFlow places it
    mirrored      all GPUs of this machine (tf.distribute.MirroredStrategy); without one, the CPU
    multiworker   several processes, usually one a machine, which all run the same command

The workers of `multiworker` are those of the environment variable TF_CONFIG, as TensorFlow
defines it,

    {"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}

or, where it is not set, the tasks of a Slurm job step (srun).  A `chief` beside the workers is
worker 1.  Adversarial training exchanges gradients between them; the attacks exchange nothing
but files (common/shards.py).
"""

import json
import os
import signal
from typing import NamedTuple

from common import command
from common.command import Failure

STRATEGIES = ("none", "mirrored", "multiworker")
JOBS = ("chief", "worker")
# Of Slurm's workers; a job adds its own number, so that two jobs on a machine do not meet.
PORT, PORTS = 12000, 10000
EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)


class Worker(NamedTuple):
    """One of `count` processes that share the work; rank 0 is the one that reports."""

    rank: int = 0
    count: int = 1

    def __str__(self):
        return f"worker {self.rank + 1} of {self.count}"


def add_argument(parser):
    """The `--strategy` argument."""
    parser.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="none",
        help="none: this process; mirrored: all GPUs of this machine; multiworker: the processes "
        "that TF_CONFIG or Slurm names, each started with the same command",
    )


def worker(strategy):
    """Which worker this process is.  Raises `Failure` where the environment does not tell."""
    if strategy != "multiworker":
        return Worker()
    resolver = cluster()
    jobs = resolver.cluster_spec().as_dict()
    ahead = len(jobs.get("chief", ())) if resolver.task_type == "worker" else 0
    return Worker(ahead + resolver.task_id, sum(map(len, jobs.values())))


def cluster():
    """TensorFlow's cluster resolver for this process's environment: TF_CONFIG, or else Slurm.

    Raises `Failure`, one line, when neither is there or they do not make sense.
    """
    if "TF_CONFIG" in os.environ:
        return _from_tf_config(os.environ["TF_CONFIG"])
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        return _from_slurm()
    if "SLURM_JOB_ID" in os.environ:
        raise Failure(
            "--strategy multiworker: a Slurm job, but no job step: start the script with srun"
        )
    raise Failure(
        "--strategy multiworker: neither TF_CONFIG nor Slurm names the workers: set TF_CONFIG "
        f"on each machine, for example to {EXAMPLE}"
    )


def _from_tf_config(text):
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Failure(f"TF_CONFIG is not JSON ({error}): it should look like {EXAMPLE}") from error
    flaw = _flaw(config)
    if flaw:
        raise Failure(f"TF_CONFIG {flaw}: it should look like {EXAMPLE}")

    import tensorflow as tf

    return tf.distribute.cluster_resolver.TFConfigClusterResolver()


def _flaw(config):
    """What is wrong with a TF_CONFIG, or None."""
    jobs = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(jobs, dict) or not jobs:
        return "names no workers"
    for job, addresses in jobs.items():
        if job not in JOBS:
            return f"has the job {job!r}, but only worker and chief have a part here"
        if not isinstance(addresses, list) or not addresses:
            return f"has no list of addresses for {job!r}"
        if not all(isinstance(address, str) and ":" in address for address in addresses):
            return f"has a {job} without host:port"
    if len(jobs.get("chief", ())) > 1:
        return "has more than one chief"
    every = [address for addresses in jobs.values() for address in addresses]
    if len(set(every)) < len(every):
        return "has the same address twice"
    task = config.get("task")
    if not isinstance(task, dict) or task.get("type") not in jobs:
        return "does not say which task of the cluster this is"
    index = str(task.get("index"))
    if not index.isdecimal() or int(index) >= len(jobs[task["type"]]):
        number = len(jobs[task["type"]])
        return f"has the task index {index}, but {task['type']} goes from 0 to {number - 1}"
    return None


def _from_slurm():
    import tensorflow as tf

    resolvers = tf.distribute.cluster_resolver
    try:
        # Slurm itself gives each task its GPUs.  The resolver would count and number them anew,
        # and cannot do without any, so it is told of one a task.
        slurm = resolvers.SlurmClusterResolver(
            port_base=PORT + int(os.environ.get("SLURM_JOB_ID", 0)) % PORTS,
            gpus_per_node=int(os.environ["SLURM_STEP_NUM_TASKS"]),
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        spec = slurm.cluster_spec()
        job, rank = slurm.get_task_info()
    except (RuntimeError, ValueError, KeyError) as error:
        raise Failure(
            f"Slurm's environment does not tell the workers ({error}): start with srun, or set "
            f"TF_CONFIG to {EXAMPLE}"
        ) from error
    host = spec.task_address(job, rank).rsplit(":", 1)[0]
    here = os.environ.get("SLURMD_NODENAME", host)
    if host != here:
        # The resolver sorts hosts by name: n10 comes before n9, whatever Slurm's order is.
        raise Failure(
            f"Slurm runs task {rank} on {here}, TensorFlow's resolver expects it on {host}: use "
            f"srun --distribution=block and host names in alphabetical order, or set TF_CONFIG "
            f"to {EXAMPLE}"
        )
    return resolvers.SimpleClusterResolver(
        spec,
        task_type=job,
        task_id=rank,
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        rpc_layer="grpc",
    )


def strategy(name):
    """The tf.distribute strategy for `mirrored` or `multiworker`.

    `multiworker` waits here until all workers are there; nothing of TensorFlow may have been
    used before.  Without a GPU `mirrored` prints a line and has one replica on the CPU.
    """
    import tensorflow as tf

    if name == "multiworker":
        resolver = cluster()
        print("waiting until all workers are there", flush=True)
        # TensorFlow waits without letting Python run: Ctrl-C has to end the process by itself.
        handler = signal.getsignal(signal.SIGINT)
        if handler is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
        except tf.errors.OpError as error:
            raise Failure(
                f"this worker cannot join the others ({command.one_line(error)}): are the "
                "addresses and ports right, and free?"
            ) from error
        finally:
            signal.signal(signal.SIGINT, handler)
    return tf.distribute.MirroredStrategy(local_devices(say=True))


def local_devices(*, say=False):
    """The GPUs of this process by name, or else its CPU."""
    import tensorflow as tf

    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    if say and not gpus:
        print("--strategy mirrored: no GPU here, so one replica on the CPU", flush=True)
    return gpus or ["/device:CPU:0"]


def sharing(model, name):
    """A function that shares out images over the replicas of `model` that the strategy has.

    share(function, *arrays) calls function(model, *parts), with the rows of the arrays split
    evenly, on all devices at once, and joins what it returns (an array with as many rows, or a
    tuple of such).  With one device it is function(model, *arrays) and nothing else.
    """
    if name == "none":
        return lambda function, *arrays: function(model, *arrays)

    import tensorflow as tf

    devices = local_devices(say=name == "mirrored")
    if len(devices) > 1:
        devices = tf.distribute.MirroredStrategy(devices).extended.worker_devices
    return over_devices(model, devices)


def over_devices(model, devices):
    """`sharing` for the devices named."""
    if len(devices) == 1:
        return lambda function, *arrays: function(model, *arrays)

    from concurrent.futures import ThreadPoolExecutor

    import keras
    import numpy as np
    import tensorflow as tf

    # An attack goes back and forth between Python and the device, so each replica has a thread:
    # strategy.run would let one wait for the other.
    replicas = []
    for device in devices:
        with tf.device(device):
            replica = keras.models.clone_model(model)
            replica.set_weights(model.get_weights())
            replicas.append(replica)

    def on_device(function, device, replica, parts):
        with tf.device(device):
            return function(replica, *parts)

    def share(function, *arrays):
        split = zip(*(np.array_split(array, len(devices)) for array in arrays), strict=True)
        work = [
            (function, device, replica, parts)
            for device, replica, parts in zip(devices, replicas, split, strict=True)
            if len(parts[0])
        ]
        if len(work) < 2:
            return function(model, *arrays)
        with ThreadPoolExecutor(len(work)) as pool:
            done = list(pool.map(on_device, *zip(*work, strict=True)))
        if isinstance(done[0], tuple):
            return tuple(np.concatenate(parts) for parts in zip(*done, strict=True))
        return np.concatenate(done)

    return share
