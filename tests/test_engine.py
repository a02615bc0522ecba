"""Batches in threads and on real Dask workers, which are killed, interrupted and missing."""

import os
import signal
import sys
import threading
import time

import distributed
import keras
import numpy as np
import pytest
import tensorflow as tf

from common import data
from common.command import Failure
from common.networks import mnist
from common.run import cluster, engine
from method1_noise_optimization import attack_mnist
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


def first_kills(marker):
    """The first time it ends its worker, the second time it does not."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return marker.name


class Deadly:
    """A batch that ends the process which unpacks it."""

    def __reduce__(self):
        return os._exit, (1,)


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


def test_an_interrupt_does_not_wait_for_the_batch_that_a_thread_is_at():
    begun, end, ended = threading.Event(), threading.Event(), []

    def batches():
        yield 0
        assert begun.wait(20)
        raise KeyboardInterrupt

    def work(number):
        begun.set()
        ended.append(end.wait(20))

    with pytest.raises(KeyboardInterrupt), engine.start() as run:
        list(run(work, batches()))
    assert not ended
    end.set()


def test_threads_that_share_a_model_do_not_mix_up_their_batches(digits, monkeypatch):
    """Eight batches in four threads, against one thread."""
    monkeypatch.setattr(engine, "cores", lambda: 4)
    untrained = model = mnist.build("softmax")
    batches = [(digits[0][i : i + 20 + i % 3], digits[1][i : i + 20 + i % 3]) for i in range(8)]

    def attacked(batch):
        x_adv = fgsm.fgsm(model, *batch, 0.1)
        return x_adv, mnist.predict(model, x_adv)

    expected = [attacked(batch) for batch in batches]
    model = keras.models.clone_model(untrained)  # traced and tried anew
    model.set_weights(untrained.get_weights())
    with engine.start() as run:
        for found, one in zip(run(attacked, batches), expected, strict=True):
            np.testing.assert_array_equal(found[0], one[0])
            np.testing.assert_array_equal(found[1], one[1])


# No cluster --------------------------------------------------------------------------------------


def refused(match, cluster):
    with pytest.raises(Failure, match=match) as caught, engine.start(str(cluster)):
        pytest.fail("started")
    assert "\n" not in str(caught.value)


def test_without_dask_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.delattr("common.run.cluster")
    monkeypatch.setitem(sys.modules, "common.run.cluster", None)
    refused(r'pip install "dask\[distributed\]"', "tcp://127.0.0.1:1")


def test_no_scheduler_and_no_scheduler_file_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "CONNECT", 0.5)
    (tmp_path / "s.json").write_text("[1]")
    for address in ("tcp://127.0.0.1:1", tmp_path / "none.json", tmp_path / "s.json"):
        refused(f"no Dask cluster works at {address}", address)


def test_a_scheduler_without_workers_or_that_goes_away_is_one_line(monkeypatch):
    monkeypatch.setattr(cluster, "JOIN", 0.5)
    options = {"processes": False, "dashboard_address": None, "protocol": "tcp"}
    with distributed.LocalCluster(n_workers=0, host="127.0.0.1", **options) as local:
        refused("Only 0/1 workers", local.scheduler_address)
        local.scale(1)
        local.wait_for_workers(1)
        monkeypatch.setattr(cluster, "CONNECT", 0.5)
        with pytest.raises(Failure, match="was lost"), engine.start(local.scheduler_address) as run:
            [local.close() for found in run(square, range(100)) if found == 0]


# Two workers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local():
    """Two workers on this machine."""
    options = {"dashboard_address": None, "memory_limit": 0, "threads_per_worker": 1}
    with distributed.LocalCluster(n_workers=2, host="127.0.0.1", **options) as local:
        yield local


@pytest.fixture
def address(local):
    """Of their scheduler, once both are there."""
    local.wait_for_workers(2)
    return local.scheduler_address


@pytest.mark.slow
def test_workers_give_results_in_order_and_what_they_raise_arrives(address):
    with engine.start(address) as run:
        assert list(run(square, range(30))) == [number**2 for number in range(30)]
        with pytest.raises(Failure, match=r"^3 is odd$"):
            list(run(half, [2, 3]))
        with pytest.raises(MemoryError):
            list(run(half, [22]))


@pytest.mark.slow
def test_other_versions_and_other_code_are_one_line(address, monkeypatch):
    here = cluster.environment()
    monkeypatch.setattr(cluster, "environment", lambda: here | {"numpy": "1.0"})
    refused(f"has numpy {here['numpy']} and not 1.0", address)
    # Of workers that join when the others have been looked at.
    monkeypatch.setattr(cluster, "environment", lambda: here)
    with engine.start(address) as run:
        monkeypatch.setattr(cluster, "environment", lambda: here | {"code": "1.0"})
        with pytest.raises(Failure, match=f"has code {here['code']} and not"):
            list(run(square, [2]))


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_and_a_batch_that_always_kills_is_named(address, tmp_path):
    markers = [tmp_path / str(number) for number in range(6)]
    for marker in markers[1:]:
        marker.touch()
    with engine.start(address) as run:
        assert list(run(first_kills, markers)) == list("012345")
    with (
        pytest.raises(Failure, match=r"^batch Deadly ended every worker"),
        engine.start(address) as run,
    ):
        list(run(abs, [Deadly()], name=lambda batch: f"batch {type(batch).__name__}"))


# The same bytes ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_digits_come_out_the_same_wherever_they_are_attacked(
    trained, address, tmp_path, monkeypatch
):
    x, y, indices = data.draw_samples(40, 0)
    np.savez(tmp_path / "samples.npz", images=x, labels=y, indices=indices)
    monkeypatch.setattr(mnist_fast_gradient, "BATCH", 9)
    monkeypatch.setitem(attack_mnist.DIGITS, "minimal", 9)
    how = ["--method", "minimal", "--model", "softmax", "--max-steps", "5", "--starts", "2"]
    sign_step = (mnist_fast_gradient.main, "--model", "cnn", "--target", "3")
    for main, *options in ((attack_mnist.main, *how), sign_step):
        written = []
        for cores, *where in ((1,), (2,), (1, "--cluster", address)):
            monkeypatch.setattr(engine, "cores", lambda cores=cores: cores)
            output = tmp_path / f"{len(written)}.npz"
            samples = ("--samples", str(tmp_path / "samples.npz"))
            main([*options, *samples, *where, "--output", str(output)])
            written.append(output.read_bytes())
        assert len(set(written)) == 1


def linear(path, side):
    """A linear network's file, as an option."""
    keras.utils.set_random_seed(0)
    layers = keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(5)
    keras.Sequential([keras.Input((side, side, 3)), *layers]).save(path)
    return "--model", str(path)


ON_CORES = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv.pop(1))])
from method2_fgsm import imnet_fast_gradient
imnet_fast_gradient.main()
"""


@pytest.mark.slow
def test_photographs_come_out_the_same_on_a_processor_without_avx512(tmp_path, python, monkeypatch):
    """From the shell, by sums over 49,152 pixels, which two threads would take otherwise."""
    network = linear(tmp_path / "n.keras", 128)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.delenv(name)
    written = []
    for cores in (1, 2):
        output = tmp_path / f"{cores}.csv"
        run = "-c", ON_CORES, cores, *network, "--output", output
        done = python(*run, ONEDNN_MAX_CPU_ISA="AVX2")
        assert done.returncode == 0, done.stderr
        written.append((output.read_bytes(), output.with_suffix(".npz").read_bytes()))
    assert len(set(written)) == 1


# The script, which strikes itself when so many batches of the run are on the disk.
STRUCK = """
import os, pathlib, signal, sys
from common import command
signal.signal(signal.SIGINT, signal.default_int_handler)
blow, batches = int(sys.argv.pop(1)), int(sys.argv.pop(1))
replace = os.replace
def then_strike(source, target):
    replace(source, target)
    if len(list(pathlib.Path(target).parent.glob("[0-9]*.csv"))) == batches:
        os.kill(os.getpid(), blow)
os.replace = then_strike
from method2_fgsm import imnet_fast_gradient
command.run(imnet_fast_gradient.main)
"""


@pytest.mark.slow
def test_ctrl_c_and_a_kill_lose_nothing_and_double_nothing(address, tmp_path, python):
    how = [*linear(tmp_path / "linear.keras", 32), "--batch-size", "1", "--output"]
    whole, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    imnet_fast_gradient.main([*how, str(whole)])

    def struck(blow, batches, *options):
        return python("-c", STRUCK, int(blow), batches, *how, output, *options)

    done = struck(signal.SIGINT, 3, "--cluster", address)
    assert done.returncode == 130, done.stderr
    assert done.stderr.count("\n") == 1
    assert "go on with --resume" in done.stderr
    assert not output.exists()
    assert struck(signal.SIGKILL.value, 6, "--resume").returncode == -signal.SIGKILL
    assert not output.exists()
    imnet_fast_gradient.main([*how, str(output), "--resume"])
    for suffix in (".csv", ".npz"):
        one, other = (path.with_suffix(suffix).read_bytes() for path in (whole, output))
        assert one == other
    written = ["linear.keras", "out.csv", "out.npz", "whole.csv", "whole.npz"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".") == written
