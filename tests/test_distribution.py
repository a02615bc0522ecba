"""Several workers: who they are, whose part is whose, and that the whole is what one would do."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from common import data, distribution, files, models, results, samples, shards
from common.command import Failure
from common.distribution import Worker

TIMEOUT = 100  # seconds, after which a process that hangs is ended
SLURM = {
    "SLURM_JOB_ID": "10007",
    "SLURM_PROCID": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "n[1-3]",
    "SLURM_STEP_TASKS_PER_NODE": "1,2,1",
    "SLURMD_NODENAME": "n2",
}
TWO = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}


@pytest.fixture
def environment(monkeypatch):
    """A function: the variables of TF_CONFIG and Slurm that this process sees."""
    for name in os.environ:
        if name == "TF_CONFIG" or name.startswith("SLURM"):
            monkeypatch.delenv(name)

    def put(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value if isinstance(value, str) else json.dumps(value))

    return put


@pytest.mark.parametrize(
    ("jobs", "task", "worker"),
    [
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), (1, 2)),
        ({"worker": ["a:1"]}, ("worker", 0), (0, 1)),
        ({"chief": ["c:1"], "worker": ["a:1", "b:1"]}, ("chief", 0), (0, 3)),
        ({"chief": ["c:1"], "worker": ["a:1", "b:1"]}, ("worker", 0), (1, 3)),
        ({"worker": ["a:1", "b:1"], "chief": ["c:1"]}, ("worker", "1"), (2, 3)),
    ],
)
def test_tf_config_tells_the_worker(environment, jobs, task, worker):
    kind, index = task
    environment(TF_CONFIG={"cluster": jobs, "task": {"type": kind, "index": index}}, **SLURM)
    assert distribution.worker("multiworker") == worker
    assert distribution.worker("none") == distribution.worker("mirrored") == (0, 1)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "names no workers"),
        ("{}", "names no workers"),
        (TWO | {"cluster": {}}, "names no workers"),
        (TWO | {"cluster": {"worker": "a:1"}}, "no list of addresses"),
        (TWO | {"cluster": {"worker": ["a", "b:1"]}}, "without host:port"),
        (TWO | {"cluster": {"worker": ["a:1", "a:1"]}}, "the same address twice"),
        (TWO | {"cluster": {"worker": ["a:1"], "ps": ["p:1"]}}, "the job 'ps'"),
        (TWO | {"cluster": {"worker": ["a:1"], "chief": ["p:1", "q:1"]}}, "more than one chief"),
        ({"cluster": TWO["cluster"]}, "which task"),
        (TWO | {"task": {"type": "chief", "index": 0}}, "which task"),
        (TWO | {"task": {"type": "worker", "index": 2}}, "index 2, but worker goes from 0 to 1"),
        (TWO | {"task": {"type": "worker", "index": -1}}, "index -1"),
        (TWO | {"task": {"type": "worker"}}, "index None"),
    ],
)
def test_a_tf_config_that_makes_no_sense_is_one_line(environment, config, words):
    environment(TF_CONFIG=config)
    with pytest.raises(Failure, match=re.escape(words)) as failure:
        distribution.worker("multiworker")
    assert distribution.EXAMPLE in str(failure.value)


def test_slurm_tells_the_worker(environment):
    environment(**SLURM)
    assert distribution.worker("multiworker") == (2, 4)
    addresses = distribution.cluster().cluster_spec().as_dict()["worker"]
    port = distribution.PORT + 7
    assert addresses == [f"n1:{port}", f"n2:{port}", f"n2:{port + 1}", f"n3:{port}"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "neither TF_CONFIG nor Slurm"),
        ({"SLURM_JOB_ID": "1"}, "start the script with srun"),
        ({k: v for k, v in SLURM.items() if k != "SLURM_PROCID"}, "does not tell the workers"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "some"}, "does not tell the workers"),
        (SLURM | {"SLURMD_NODENAME": "n3"}, "task 2 on n3"),
    ],
)
def test_an_environment_without_workers_is_one_line(environment, variables, words):
    environment(**variables)
    with pytest.raises(Failure, match=words):
        distribution.worker("multiworker")


def test_every_row_is_exactly_one_workers():
    generator = np.random.default_rng(0)
    for _ in range(200):
        count, workers, block = (
            int(generator.integers(*ends)) for ends in ((0, 90), (1, 9)) * 1 + ((1, 12),)
        )
        parts = [shards.mine(count, Worker(rank, workers), block) for rank in range(workers)]
        assert sorted(np.concatenate(parts)) == list(range(count))
        # Whole blocks, and nobody has more than one block more than another.
        assert all((np.diff(part // block) % workers == 0).all() for part in parts)
        assert max(map(len, parts)) - min(map(len, parts)) <= block


def test_the_parts_of_a_batch_weigh_together_what_the_batch_does():
    from method2_fgsm import distributed_training

    for size in range(1, 12):
        for replicas in range(1, 7):
            batch = np.arange(100, 100 + size)
            parts = [distributed_training.part(batch, i, replicas) for i in range(replicas)]
            weight = dict.fromkeys(batch, 0)
            for rows, share in parts:
                assert len(rows)
                for row in rows:
                    weight[row] += share / len(rows)
            np.testing.assert_allclose(list(weight.values()), 1 / size)


def test_the_order_depends_on_seed_and_epoch_alone():
    from method2_fgsm.distributed_training import order

    assert sorted(order(50, 1, 2)) == list(range(50))
    np.testing.assert_array_equal(order(50, 1, 2), order(50, 1, 2))
    assert (order(50, 1, 2) != order(50, 1, 3)).any()
    assert (order(50, 1, 2) != order(50, 2, 2)).any()


def test_waiting_ends_when_nothing_moves(tmp_path, capsys):
    worker = Worker(0, 3)
    flaws = {1: "made with other settings", 2: ""}
    with pytest.raises(Failure, match=r"workers 2, 3 of 3 .* --resume"):
        shards.wait(worker, lambda _: [tmp_path / "x"], lambda other: flaws[other.rank], 0.01)
    assert "worker 2 of 3 do not count: made with other settings" in capsys.readouterr().out


# A worker: runs scripts one after the other, with weights, figures and samples in a folder of its
# own and fewer digits, and kills itself where it is told to.
CHILD = """
import importlib, json, os, signal, sys
from pathlib import Path
from common import command, data, files, samples
folder, (train, test), kill, commands = (json.loads(text) for text in sys.argv[1:])
files.WEIGHTS, files.IMG = Path(folder, "weights"), Path(folder, "img")
samples.PATH = Path(folder, "5k_samples.npz")
real, count = data.load, {"train": train, "test": test}
data.load = lambda split: [part[:count[split]] for part in real(split)]

def killing(module, name, calls):
    function, left = getattr(module, name), calls
    def counted(*arguments):
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    setattr(module, name, counted)

def main():
    if kill:
        killing(importlib.import_module(kill[0]), *kill[1:])
    for module, *arguments in commands:
        importlib.import_module(module).main(arguments)

command.run(main)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with 300 samples, and weights of two models that classify digits somewhat."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "weights").mkdir()
    x, y = data.load("test")
    np.savez(folder / "5k_samples.npz", images=x[:300], labels=y[:300], indices=np.arange(300))
    # The nearest mean digit: |x - m|² is smallest where x·m - |m|²/2 is largest.
    x, y = data.load("train")
    means = np.stack([x[y == digit].mean(axis=0).ravel() for digit in range(10)])
    softmax = models.build("softmax")
    softmax.set_weights([3 * means.T, -1.5 * (means**2).sum(axis=1)])
    softmax.save_weights(folder / "weights" / "softmax.weights.h5")
    models.build("mlp").save_weights(folder / "weights" / "mlp.weights.h5")
    return folder


class Cluster:
    """Worker processes on 127.0.0.1, started one by one; `end` waits for one of them."""

    def __init__(self, count):
        sockets = [socket.socket() for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        self.addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
        for one in sockets:
            one.close()

    def start(self, rank, world, commands, *, digits=(600, 100), kill=None):
        config = {
            "cluster": {"worker": self.addresses},
            "task": {"type": "worker", "index": rank},
        }
        arguments = (str(world), digits, kill, commands)
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, *map(json.dumps, arguments)],
            env={
                **os.environ,
                "PYTHONPATH": str(files.ROOT),
                "TF_CONFIG": json.dumps(config),
                "CUDA_VISIBLE_DEVICES": "-1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def end(process):
    """(exit code, stdout, stderr) of a process, which is killed if it does not end in time."""
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"a worker did not end:\n{out}\n{err}")
    return process.returncode, out, err


def attacks(folder, *strategy, resume=()):
    """The three attack scripts with their output in `folder`, as module and arguments."""
    return [
        (module, *arguments, *strategy, "--output", str(folder / name))
        for module, name, *arguments in (
            (
                "method2_fgsm.imnet_fast_gradient",
                "photos.csv",
                "--batch-size",
                "2",
                *resume,
                "--save-images",
                str(folder / "png"),
            ),
            (
                "method2_fgsm.mnist_fast_gradient",
                "sign.npz",
                "--model",
                "softmax",
                "--full-test-set",
                *resume,
            ),
            ("method1_noise_optimization.attack_mnist", "noise.npz", "--model", "softmax", *resume),
        )
    ]


@pytest.fixture(scope="module")
def attacked(world):
    """The attacks by one process and by two, of which the second was killed on its way."""
    one, two = world / "one", world / "two"
    one.mkdir()
    two.mkdir()
    cluster = Cluster(2)
    commands = attacks(two, "--strategy", "multiworker", "--wait", str(TIMEOUT))
    again = attacks(two, "--strategy", "multiworker", resume=["--resume"])
    digits = (600, 3000)
    first = cluster.start(0, world, commands, digits=digits)
    second = cluster.start(
        1,
        world,
        commands,
        digits=digits,
        kill=("method2_fgsm.imnet_fast_gradient", "attack", 1),
    )
    killed = end(second)
    left = sorted(path.name for path in two.iterdir() if "worker-2" in path.name)
    second = cluster.start(1, world, again, digits=digits)
    alone = subprocess.run(
        [
            sys.executable,
            "-c",
            CHILD,
            *map(json.dumps, (str(world), digits, None, attacks(one))),
        ],
        env={**os.environ, "PYTHONPATH": str(files.ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert alone.returncode == 0, alone.stderr
    return one, two, killed, left, end(second), end(first), alone


def test_a_killed_worker_resumes_while_the_first_one_waits(attacked):
    _, _, killed, left, second, first, _ = attacked
    assert killed[0] == -signal.SIGKILL
    assert left == ["photos.worker-2-of-2.partial.csv", "photos.worker-2-of-2.partial.npz"]
    assert (second[0], second[2]) == (0, "")
    assert (first[0], first[2]) == (0, "")
    assert "waiting for worker 2 of 2" in first[1]
    assert second[1].count("worker 2 of 2 is done") == 3


def test_two_workers_write_what_one_does(attacked):
    one, two, *_ = attacked
    assert sorted(os.listdir(one)) == sorted(os.listdir(two))  # and no shard is left
    assert sorted(os.listdir(one / "png")) == sorted(os.listdir(two / "png"))
    assert (one / "photos.csv").read_bytes() == (two / "photos.csv").read_bytes()
    for name in ("photos.npz", "sign.npz", "noise.npz"):
        alone, shared = results.load(one / name), results.load(two / name)
        assert list(alone) == list(shared)
        for key, array in alone.items():
            if key == "config":
                folders = [shared[key].pop("save_images", None), array.pop("save_images", None)]
                assert len({folder and os.path.basename(folder) for folder in folders}) == 1
                assert array == shared[key]
            elif array.dtype == np.int64:
                np.testing.assert_array_equal(shared[key], array)
            else:
                np.testing.assert_allclose(shared[key], array, atol=2e-6)


def test_the_first_worker_prints_the_table_of_a_single_process(attacked):
    *_, second, first, alone = attacked
    timed = re.compile(r"^(waiting|wrote|seconds|images a second|photographs a second).*\n", re.M)
    assert timed.sub("", first[1]) == timed.sub("", alone.stdout)
    assert "error rate" not in second[1]


EPOCHS = 2


def training(batch_size, strategy):
    return [
        (
            "method2_fgsm.adversarial_training",
            "--model",
            "mlp",
            "--epochs",
            str(EPOCHS),
            "--batch-size",
            str(batch_size),
            "--strategy",
            strategy,
        )
    ]
