"""Several workers: who they are, whose part is whose, and that the whole is what one would do."""

import contextlib
import importlib
import io
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common import data, distribution, files, models, plots, results, shards
from common.command import Failure
from common.distribution import Worker
from common.imagenet import networks
from common.startup import LOG_LINE
from method2_fgsm import adversarial_training

# Where a worker finds the project, and this file.
MODULES = os.pathsep.join((str(files.ROOT), str(Path(__file__).parent)))
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


# What a worker runs: scripts one after the other, with weights, figures and samples in a folder of
# its own, fewer digits, no figures, and a network for photographs that takes no time; and it kills
# itself where it is told to.
CHILD = """
import json, sys
from common import command
from test_distribution import run_scripts
command.run(lambda: run_scripts(*map(json.loads, sys.argv[1:])))
"""


def run_scripts(folder, digits, kill, commands):
    """Run scripts in this process; folder: that of `world`; kill: module, name, calls to live."""
    real = data.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "WEIGHTS", Path(folder, "weights"))
        patch.setattr(files, "IMG", Path(folder, "img"))
        patch.setattr(data, "SAMPLES", Path(folder, "5k_samples.npz"))
        patch.setattr(data, "load", lambda split: [part[: digits[split]] for part in real(split)])
        patch.setattr(networks, "load", simple_network)
        # Of what the first worker does after training, a little is enough here.
        patch.setattr(adversarial_training, "CURVE", np.zeros(1))
        patch.setattr(adversarial_training, "PGD_STEPS", 3)
        patch.setattr(plots, "save", lambda figure, path: Path(path).touch())
        if kill:
            module, name, calls = kill
            module = importlib.import_module(module)
            calls, function = itertools.count(-calls), getattr(module, name)

            def counted(*arguments):
                if not next(calls):
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments)

            patch.setattr(module, name, counted)
        for module, *arguments in commands:
            importlib.import_module(module).main(arguments)


def simple_network(name, weights=None):
    """A network for photographs whose labels one sign step changes."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((224, 224, 3))
    pooled = keras.layers.Flatten()(keras.layers.AveragePooling2D(32)(image))
    wide = keras.initializers.RandomNormal(stddev=3)
    return keras.Model(image, keras.layers.Dense(1000, kernel_initializer=wide)(pooled))


def reference(world, digits, commands):
    """Run scripts in this process, alone; returns what they print."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        run_scripts(world, digits, None, commands)
    return out.getvalue()


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
    """Worker processes on 127.0.0.1 with free ports."""

    def __init__(self, world, digits, commands, count=2):
        self.world, self.digits, self.commands = world, digits, commands
        sockets = [socket.socket() for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        self.addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
        for one in sockets:
            one.close()

    def start(self, rank, *, kill=None, more=()):
        """Start a worker; more: arguments to add to each command."""
        task = {"type": "worker", "index": rank}
        commands = [[*command, *more] for command in self.commands]
        arguments = (str(self.world), self.digits, kill, commands)
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, *map(json.dumps, arguments)],
            env={
                **os.environ,
                "PYTHONPATH": MODULES,
                "TF_CONFIG": json.dumps({"cluster": {"worker": self.addresses}, "task": task}),
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
    # TensorFlow before 2.21 has its own to say of XLA and of gRPC.
    lines = err.splitlines(keepends=True)
    return process.returncode, out, "".join(x for x in lines if not LOG_LINE.match(x.encode()))


def attacks(folder, *strategy):
    """The three attack scripts with their output in `folder`, as module and arguments."""
    photos = ["--batch-size", "2", "--save-images", str(folder / "png")]
    sign = ["--model", "softmax", "--full-test-set"]
    return [
        [f"{module}", *arguments, *strategy, "--output", str(folder / name)]
        for module, name, arguments in (
            ("method2_fgsm.imnet_fast_gradient", "photos.csv", photos),
            ("method2_fgsm.mnist_fast_gradient", "sign.npz", sign),
            ("method1_noise_optimization.attack_mnist", "noise.npz", ["--model", "softmax"]),
        )
    ]


@pytest.fixture(scope="module")
def attacked(world):
    """The attacks by one process and by two, of which the second was killed on its way."""
    one, two = world / "one", world / "two"
    one.mkdir()
    two.mkdir()
    digits = {"train": 600, "test": 3000}
    wait = ["--strategy", "multiworker", "--wait", str(TIMEOUT)]
    cluster = Cluster(world, digits, attacks(two, *wait))
    first = cluster.start(0)
    killed = end(cluster.start(1, kill=("method2_fgsm.imnet_fast_gradient", "attack", 1)))
    left = sorted(path.name for path in two.iterdir() if "worker-2" in path.name)
    second = cluster.start(1, more=["--resume"])
    alone = reference(world, digits, attacks(one))
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
                folders = [config.pop("save_images", None) for config in (shared[key], array)]
                assert folders in ([None, None], [str(two / "png"), str(one / "png")])
                assert array == shared[key]
            elif array.dtype == np.int64:
                np.testing.assert_array_equal(shared[key], array)
            else:
                np.testing.assert_allclose(shared[key], array, atol=2e-6)


def test_the_first_worker_prints_the_table_of_a_single_process(attacked):
    *_, second, first, alone = attacked
    timed = re.compile(r"^(waiting|wrote|seconds|images a second|photographs a second).*\n", re.M)
    assert timed.sub("", first[1]) == timed.sub("", alone)
    assert "error rate" not in second[1]


def stop_at(calls):
    """A patch of `order`, with which each epoch begins: epochs to live."""
    return ("method2_fgsm.distributed_training", "order", calls)


@pytest.fixture(scope="module")
def trained_by(world):
    """An MLP trained for two epochs by one worker, and by two, of which one was lost."""
    digits = {"train": 610, "test": 100}
    weights = models.weights_path("mlp_adversarial").name

    def command(name, strategy):
        figure = ["--output", str(world / f"{name}.png"), "--strategy", strategy]
        train = ["method2_fgsm.adversarial_training", "--model", "mlp", *figure]
        return [[*train, "--epochs", "2", "--batch-size", "15"]]

    one = reference(world, digits, command("one", "mirrored"))
    (world / "weights" / weights).rename(world / "one.weights.h5")
    cluster = Cluster(world, digits, command("two", "multiworker"))
    lost = [cluster.start(0), cluster.start(1, kill=stop_at(1))]
    lost = [end(process) for process in lost]
    left = (world / "weights" / "mlp_adversarial_checkpoints" / "checkpoint").exists()
    again = [end(process) for process in [cluster.start(0), cluster.start(1)]]
    (world / "weights" / weights).rename(world / "two.weights.h5")
    return one, lost, left, again


def test_a_lost_worker_ends_the_others_with_one_line(trained_by):
    _, (survivor, killed), left, _ = trained_by
    assert killed[0] == -signal.SIGKILL
    assert survivor[0] == 1
    assert re.fullmatch(r".*error: worker 1 of 2 has lost .* start all of them.*\n", survivor[2])
    assert "epoch 1/2: loss" in survivor[1]
    assert "epoch 2/2" not in survivor[1]
    assert left


def test_two_workers_train_what_one_does_even_when_they_go_on(trained_by, world):
    """610 digits in batches of 15: two parts that are not equal, and a last batch of 10."""
    alone, _, _, (first, second) = trained_by
    assert (first[0], first[2]) == (second[0], second[2]) == (0, "")
    assert "one replica on the CPU" in alone
    assert "going on after epoch 1" in first[1]
    assert second[1].splitlines()[-1].startswith("worker 2 of 2 is done")
    assert not (world / "weights" / "mlp_adversarial_checkpoints").exists()
    table = re.compile(r"^(?:clean error|error, |epoch 2).*$", re.M)
    assert len(table.findall(alone)) == 5
    assert table.findall(first[1]) == table.findall(alone)
    one, two = (
        models.load("mlp", world / name).get_weights()
        for name in ("one.weights.h5", "two.weights.h5")
    )
    for alone, shared in zip(one, two, strict=True):
        np.testing.assert_allclose(shared, alone, atol=1e-4)
    before = models.load("mlp", world / "weights" / "mlp.weights.h5").get_weights()
    assert np.abs(one[0] - before[0]).max() > 1e-2


# Two replicas without a GPU: two logical devices of one processor.
TWO_DEVICES = """
import json, sys
import common
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
from common import distribution
distribution.local_devices = lambda say=False: ["/device:CPU:0", "/device:CPU:1"]
from test_distribution import run_scripts
run_scripts(*map(json.loads, sys.argv[1:]))
"""


def test_two_devices_do_what_one_does(trained_by, attacked, world):
    """Attacks and training under `mirrored`."""
    folder = world / "devices"
    folder.mkdir()
    settings = ["--epochs", "2", "--model", "mlp", "--batch-size", "15"]
    settings += ["--output", str(folder / "figure.png"), "--strategy", "mirrored"]
    train = ["method2_fgsm.adversarial_training", *settings]
    for digits, commands in (
        ({"train": 600, "test": 3000}, attacks(folder, "--strategy", "mirrored")),
        ({"train": 610, "test": 100}, [train]),
    ):
        subprocess.run(
            [sys.executable, "-c", TWO_DEVICES]
            + [json.dumps(argument) for argument in (str(world), digits, None, commands)],
            env={**os.environ, "PYTHONPATH": MODULES},
            check=True,
            timeout=TIMEOUT,
        )
    one, *_ = attacked
    for name in ("photos.npz", "sign.npz", "noise.npz"):
        alone, shared = results.load(one / name), results.load(folder / name)
        for key in ("y_preds_adversarial", "y_trues"):
            np.testing.assert_array_equal(shared[key], alone[key])
        np.testing.assert_allclose(shared["noises"], alone["noises"], atol=2e-6)
    weights = models.weights_path("mlp_adversarial").name
    one = models.load("mlp", world / "one.weights.h5").get_weights()
    two = models.load("mlp", world / "weights" / weights).get_weights()
    for alone, shared in zip(one, two, strict=True):
        np.testing.assert_allclose(shared, alone, atol=1e-4)
