"""Batches in this process and on real Dask workers, which are killed, interrupted and missing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import distributed
import keras
import numpy as np
import pytest
import tensorflow as tf

import common
from common import data, files, results
from common.command import Failure
from common.networks import mnist
from common.run import cluster, engine, photos
from method1_noise_optimization import attack, attack_mnist
from method2_fgsm import fgsm, imnet_fast_gradient, mnist_fast_gradient

# What workers are given: they import this module.


def square(number):
    return number**2


def half(number):
    if number % 2:
        raise Failure(f"{number} is odd")
    if number > 20:
        raise MemoryError
    return number // 2


class Deadly:
    """A batch that ends the process which unpacks it."""

    def __reduce__(self):
        return os._exit, (1,)


def strike(ready, blow):
    """Call `blow` from a thread as soon as `ready()`."""

    def wait():
        while not ready():
            time.sleep(0.01)
        blow()

    threading.Thread(target=wait, daemon=True).start()


# In this process ---------------------------------------------------------------------------------


def test_as_many_batches_as_cores_are_worked_on_at_a_time_and_few_are_taken_ahead(monkeypatch):
    monkeypatch.setattr(engine, "cores", lambda: 3)
    taken, together = [], threading.Barrier(3, timeout=20)

    def batches():
        for number in range(12):
            taken.append(number)
            yield number

    def work(number):
        together.wait()  # until three have come
        return number

    with engine.start() as run:
        for count, found in enumerate(run(work, batches(), prepare=square), 1):
            assert found == (count - 1) ** 2
            assert len(taken) <= min(12, count + 3 * engine.AHEAD)


def test_a_gpu_takes_one_batch_at_a_time_while_others_are_read(monkeypatch):
    monkeypatch.setattr(engine, "cores", lambda: 2)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    at_work, reading = [], threading.Barrier(2, timeout=20)

    def read(number):
        reading.wait()
        return number

    def work(number):
        at_work.append(number)
        time.sleep(0.01)
        assert at_work.pop() == number
        assert not at_work
        return number

    with engine.start() as run:
        assert list(run(work, range(6), prepare=read)) == list(range(6))


def test_what_goes_wrong_in_reading_or_working_is_raised_here():
    with engine.start() as run:
        for arguments in ((half, [2, 3]), (str, [2, 3], half)):
            found = run(*arguments)
            assert next(found) in (1, "1")
            with pytest.raises(Failure, match="3 is odd"):
                next(found)


def test_an_interrupt_does_not_wait_for_the_batches_that_threads_are_at(monkeypatch):
    monkeypatch.setattr(engine, "cores", lambda: 2)
    begun, ended = [], []

    def work(number):
        begun.append(number)
        try:
            for _ in range(2000):
                time.sleep(0.01)
        finally:
            ended.append(number)

    main = threading.main_thread().ident
    strike(lambda: len(begun) == 2, lambda: signal.pthread_kill(main, signal.SIGINT))
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), engine.start() as run:
        list(run(work, range(10)))
    assert time.monotonic() - start < 10
    assert sorted(ended) == sorted(begun) == [0, 1]


def test_threads_that_share_a_model_do_not_mix_up_their_batches(trained, digits, monkeypatch):
    """Eight batches in four threads, several times, against one thread."""
    monkeypatch.setattr(engine, "cores", lambda: 4)
    model = trained["mlp"]
    batches = [(digits[0][i : i + 20 + i % 3], digits[1][i : i + 20 + i % 3]) for i in range(8)]

    def attacked(batch):
        x_adv = fgsm.fgsm(model, *batch, 0.1)
        noise = attack.find_noise(model, *batch, method="minimal", max_steps=5)
        return x_adv, noise, mnist.predict(model, x_adv)

    expected = [attacked(batch) for batch in batches]
    for _ in range(2):
        model = keras.models.clone_model(trained["mlp"])  # traced and tried anew
        model.set_weights(trained["mlp"].get_weights())
        with engine.start() as run:
            for found, one in zip(run(attacked, batches), expected, strict=True):
                for array, other in zip(found, one, strict=True):
                    np.testing.assert_array_equal(array, other)


# No cluster --------------------------------------------------------------------------------------


def refused(match, **arguments):
    with pytest.raises(Failure, match=match) as caught, engine.start(**arguments):
        pytest.fail("started")
    assert "\n" not in str(caught.value)


def test_without_dask_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "common.run.cluster")
    monkeypatch.delattr(common, "cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    refused(r'pip install "dask\[distributed\]"', cluster="tcp://127.0.0.1:1")


@pytest.mark.slow
def test_broken_settings_of_dask_are_one_line(tmp_path):
    """In a process of its own, since Dask reads its settings when it is imported."""
    (tmp_path / "dask.yaml").write_text("distributed: [unclosed\n")
    code = (
        "from common import engine\n"
        "from common.command import Failure\n"
        "try:\n"
        "    engine.start(cluster='tcp://127.0.0.1:1').__enter__()\n"
        "except Failure as failure:\n"
        "    print(failure)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(files.ROOT)}
    environment["DASK_CONFIG"] = str(tmp_path / "dask.yaml")
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.startswith("Dask does not start: ")
    assert done.stdout.count("\n") == 1
    assert str(tmp_path / "dask.yaml") in done.stdout


def test_an_address_without_a_scheduler_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "CONNECT", 0.5)
    monkeypatch.setattr(cluster, "JOIN", 0.5)
    for address in ("tcp://127.0.0.1:1", "udp://127.0.0.1:1"):
        refused(f"no Dask scheduler answers at {address}", cluster=address)
        with pytest.raises(ValueError, match="No clients found"):  # none is left half made
            distributed.default_client()
    refused("none.json not found", cluster=str(tmp_path / "none.json"))
    for content in ("", "[1]", "{}", "\0"):
        (tmp_path / "s.json").write_text(content)
        refused("s.json is not a scheduler file", cluster=str(tmp_path / "s.json"))
    (tmp_path / "s.json").write_text(json.dumps({"address": "tcp://127.0.0.1:1"}))
    refused("no Dask scheduler answers at tcp://127.0.0.1:1", cluster=str(tmp_path / "s.json"))


def test_a_scheduler_without_workers_or_that_goes_away_is_one_line(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT", 0.5)
    monkeypatch.setattr(cluster, "JOIN", 0.5)
    options = {"processes": False, "dashboard_address": None, "protocol": "tcp"}
    with distributed.LocalCluster(n_workers=0, host="127.0.0.1", **options) as local:
        refused("has no workers", cluster=local.scheduler_address)
        local.scale(1)
        local.wait_for_workers(1)
        with engine.start(cluster=local.scheduler_address) as run:
            found = run(square, range(100))
            assert next(found) == 0
            local.close()
            with pytest.raises(Failure, match="connection to the scheduler was lost"):
                list(found)


# Two workers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workers():
    """A client of two workers on this machine."""
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client


@pytest.fixture
def address(workers):
    """Of their scheduler, once both are there."""
    workers.wait_for_workers(2)
    return workers.scheduler.address


@pytest.mark.slow
def test_workers_give_results_in_order_and_take_few_batches_ahead(address):
    taken = []
    with engine.start(cluster=address) as run:
        for number, found in enumerate(run(square, (taken.append(i) or i for i in range(30)))):
            assert found == number**2
            assert len(taken) <= number + 1 + 2 * engine.AHEAD


@pytest.mark.slow
def test_what_a_worker_raises_arrives_as_itself(address):
    with engine.start(cluster=address) as run:
        with pytest.raises(Failure, match=r"^3 is odd$"):
            list(run(half, [2, 3]))
        with pytest.raises(MemoryError):
            list(run(half, [22]))


@pytest.mark.slow
def test_other_versions_on_the_workers_are_one_line(address, monkeypatch):
    here = results.versions()
    monkeypatch.setattr(results, "versions", lambda: here | {"numpy": "1.0"})
    cluster.environment.cache_clear()
    try:
        refused(f"has numpy {np.__version__} and not 1.0", cluster=address)
    finally:
        cluster.environment.cache_clear()


@pytest.mark.slow
def test_digits_come_out_the_same_wherever_they_are_attacked(
    trained, address, tmp_path, monkeypatch
):
    x, y, indices = data.draw_samples(80, 0)
    np.savez(tmp_path / "samples.npz", images=x, labels=y, indices=indices)
    monkeypatch.setattr(mnist_fast_gradient, "BATCH", 18)
    monkeypatch.setitem(attack_mnist.DIGITS, "minimal", 18)
    how = ["--model", "cnn", "--method", "minimal", "--max-steps", "5", "--starts", "2"]
    method1 = (attack_mnist.main, *how)
    for main, *options in (method1, (mnist_fast_gradient.main, "--target", "3")):
        written = []
        for cores, *where in ((1,), (4,), (1, "--cluster", address)):
            monkeypatch.setattr(engine, "cores", lambda cores=cores: cores)
            output = tmp_path / f"{len(written)}.npz"
            samples = ("--samples", str(tmp_path / "samples.npz"))
            main([*options, *samples, *where, "--output", str(output)])
            written.append(output.read_bytes())
        assert len(set(written)) == 1


AVX2 = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv.pop(1))])
from method2_fgsm import imnet_fast_gradient
imnet_fast_gradient.main()
"""


@pytest.mark.slow
def test_photographs_come_out_the_same_on_a_processor_without_avx512(tmp_path):
    """In four batches of the usual size, from the shell, where nothing else sets the threads."""
    (tmp_path / "photographs").mkdir()
    for number, photo in enumerate(2 * photos.find([files.COMMON / "images"], None)[1][:7]):
        link = tmp_path / "photographs" / f"{number}_{photo}"
        link.symlink_to(files.COMMON / "images" / photo)
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("TF_NUM")}
    environment |= {"ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(files.ROOT)}
    written = []
    for cores in ("1", "2"):
        output = tmp_path / f"{len(written)}.csv"
        options = ("--images", tmp_path / "photographs", "--output", output)
        run = [sys.executable, "-c", AVX2, cores, *options]
        subprocess.run(run, env=environment, check=True, capture_output=True)
        written.append((output.read_bytes(), output.with_suffix(".npz").read_bytes()))
    assert written[0][0].count(b"\n") > 1 + 3 * 4
    assert len(set(written)) == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one process writes about the nine photographs, in batches of one: a CSV path."""
    output = tmp_path_factory.mktemp("whole") / "out.csv"
    imnet_fast_gradient.main(["--batch-size", "1", "--output", str(output)])
    return output


def same(one, other):
    assert one.read_bytes() == other.read_bytes()
    assert one.with_suffix(".npz").read_bytes() == other.with_suffix(".npz").read_bytes()


def batches_done(output):
    return len(list(output.with_suffix(".unfinished").glob("[0-9]*.csv")))


@pytest.mark.slow
def test_a_worker_killed_in_mid_run_costs_nothing(workers, address, whole, tmp_path):
    output = tmp_path / "out.csv"
    victim = next(iter(workers.run(os.getpid).values()))
    strike(lambda: batches_done(output), lambda: os.kill(victim, signal.SIGKILL))
    imnet_fast_gradient.main(["--batch-size", "1", "--cluster", address, "--output", str(output)])
    assert victim not in workers.run(os.getpid).values()
    same(output, whole)


@pytest.mark.slow
def test_a_batch_that_always_kills_ends_the_run_and_is_named(address):
    with engine.start(cluster=address) as run:
        found = run(abs, [1, 2, Deadly(), 4], name=lambda batch: f"batch {type(batch).__name__}")
        assert [next(found), next(found)] == [1, 2]
        with pytest.raises(Failure, match=r"^batch Deadly ended every worker"):
            next(found)


def start(output, *options, batches):
    """The script in a process of its own; returns once it has done so many."""
    script = files.ROOT / "method2_fgsm" / "imnet_fast_gradient.py"
    options = ("--batch-size", "1", "--output", output, *options)
    process = subprocess.Popen(
        [sys.executable, script, *options],
        env={**os.environ, "PYTHONPATH": str(files.ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and batches_done(output) < batches:
        time.sleep(0.01)
    return process


@pytest.mark.slow
def test_ctrl_c_and_a_kill_lose_nothing(whole, tmp_path):
    output = tmp_path / "out.csv"
    process = start(output, batches=1)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 130, error
    assert error.count("\n") == 1
    assert "go on with --resume" in error

    process = start(output, "--resume", batches=6)
    process.kill()
    process.communicate()
    imnet_fast_gradient.main(["--batch-size", "1", "--output", str(output), "--resume"])
    same(output, whole)
