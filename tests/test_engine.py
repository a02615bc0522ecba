"""Batches in this process and on real Dask workers, which are killed, interrupted and missing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import distributed
import numpy as np
import psutil  # Dask needs it
import pytest

import common
from common import cluster, command, data, engine, files, results
from common.command import Failure
from method1_noise_optimization import attack, attack_mnist
from method2_fgsm import imnet_fast_gradient, mnist_fast_gradient

# What workers are given: they import this module.


def square(number):
    return number**2


def half(number):
    if number % 2:
        raise Failure(f"{number} is odd")
    if number > 20:
        raise MemoryError
    return number // 2


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly:
    """A batch that ends the process which unpacks it."""

    def __reduce__(self):
        return die, ()


# In this process ---------------------------------------------------------------------------------


def test_the_next_batch_is_read_while_this_one_is_worked_on_and_no_further():
    taken, readers, worked = [], set(), []

    def batches():
        for number in range(5):
            taken.append(number)
            yield number

    def read(number):
        readers.add(threading.current_thread())
        return number + 100

    def work(number):
        worked.append(number)
        assert len(taken) == min(5, len(worked) + 1)
        return number

    with engine.start() as run:
        assert list(run(work, batches(), prepare=read)) == [100, 101, 102, 103, 104]
        assert list(run(square, range(3))) == [0, 1, 4]
    assert len(readers) == 1
    assert threading.current_thread() not in readers


def test_what_goes_wrong_in_reading_or_working_is_raised_here():
    with engine.start() as run:
        for arguments in ((half, [2, 3]), (str, [2, 3], half)):
            found = run(*arguments)
            assert next(found) in (1, "1")
            with pytest.raises(Failure, match="3 is odd"):
                next(found)


# No cluster --------------------------------------------------------------------------------------


def refused(match, **arguments):
    with pytest.raises(Failure, match=match) as caught, engine.start(**arguments):
        pytest.fail("started")
    assert "\n" not in str(caught.value)


def test_workers_and_cluster_exclude_each_other(capsys):
    parser = command.Parser("")
    engine.add_arguments(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--workers", "2", "--cluster", "tcp://127.0.0.1:1"])
    assert ended.value.code == 2


def test_without_dask_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "common.cluster")
    monkeypatch.delattr(common, "cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    refused(r'pip install "dask\[distributed\]"', workers=2)


def test_an_address_without_a_scheduler_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "CONNECT", 0.5)
    monkeypatch.setattr(cluster, "JOIN", 0.5)
    for address in ("tcp://127.0.0.1:1", "udp://127.0.0.1:1"):
        refused(f"no Dask scheduler answers at {address}", cluster=address)
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
    with cluster.start(2) as client:
        yield client


@pytest.fixture
def address(workers):
    """Of their scheduler, once both are there."""
    workers.wait_for_workers(2)
    return workers.scheduler.address


@pytest.mark.slow
def test_nothing_listens_beyond_this_machine(workers):
    for process in (os.getpid(), *workers.run(os.getpid).values()):
        for connection in psutil.Process(process).net_connections("inet"):
            assert connection.status != "LISTEN" or connection.laddr.ip == "127.0.0.1"


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
def test_digits_come_out_the_same_on_workers(trained, address, tmp_path, monkeypatch):
    x, y, indices = data.draw_samples(80, 0)
    np.savez(tmp_path / "samples.npz", images=x, labels=y, indices=indices)
    monkeypatch.setattr(mnist_fast_gradient, "BATCH", 30)
    monkeypatch.setitem(attack.BATCH_SIZE, "minimal", 30)
    method1 = (attack_mnist.main, "--method", "minimal", "--max-steps", "5")
    for main, *options in (method1, (mnist_fast_gradient.main, "--target", "3")):
        written = []
        for where in ((), ("--cluster", address)):
            output = tmp_path / f"{len(written)}.npz"
            samples = ("--samples", str(tmp_path / "samples.npz"))
            main([*options, *samples, *where, "--output", str(output)])
            written.append(output.read_bytes())
        assert written[0] == written[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one process writes about the nine photographs, in batches of one: a CSV path."""
    output = tmp_path_factory.mktemp("whole") / "out.csv"
    imnet_fast_gradient.main(["--batch-size", "1", "--output", str(output)])
    return output


def same(one, other):
    assert one.read_bytes() == other.read_bytes()
    assert one.with_suffix(".npz").read_bytes() == other.with_suffix(".npz").read_bytes()


def strike(ready, blow):
    """Call `blow` from a thread as soon as `ready()`."""

    def wait():
        while not ready():
            time.sleep(0.01)
        blow()

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.slow
def test_a_worker_killed_in_mid_run_costs_nothing(workers, address, whole, tmp_path):
    output = tmp_path / "out.csv"
    victim = next(iter(workers.run(os.getpid).values()))
    strike((tmp_path / "out.partial.csv").exists, lambda: os.kill(victim, signal.SIGKILL))
    imnet_fast_gradient.main(["--batch-size", "1", "--cluster", address, "--output", str(output)])
    assert victim not in workers.run(os.getpid).values()
    same(output, whole)


@pytest.mark.slow
def test_a_batch_that_always_kills_ends_the_run_and_is_named(address):
    with engine.start(cluster=address) as run:
        found = run(square, [1, 2, Deadly(), 4], name=lambda batch: f"batch {type(batch).__name__}")
        assert [next(found), next(found)] == [1, 4]
        with pytest.raises(Failure, match=r"^batch Deadly ended every worker"):
            next(found)


def start(output, *options, rows):
    """The script in a session of its own, with one worker; returns once it has so many rows."""
    script = files.ROOT / "method2_fgsm" / "imnet_fast_gradient.py"
    options = ("--batch-size", "1", "--workers", "1", "--output", output, *options)
    process = subprocess.Popen(
        [sys.executable, script, *options],
        env={**os.environ, "PYTHONPATH": str(files.ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    partial = output.with_name("out.partial.csv")
    while process.poll() is None:
        if partial.exists() and partial.read_bytes().count(b"\n") > rows:
            break
        time.sleep(0.01)
    return process


def left(process):
    """Which processes of its group are still there, after a moment."""
    for _ in range(100):
        found = subprocess.run(
            ["ps", "-o", "pid=,args=", "-s", str(process.pid)], capture_output=True
        )
        if not found.stdout:
            break
        time.sleep(0.05)
    return found.stdout.decode()


@pytest.mark.slow
def test_ctrl_c_and_a_kill_leave_no_process_and_lose_nothing(whole, tmp_path):
    output = tmp_path / "out.csv"
    process = start(output, rows=1)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # of an impatient user
    error = process.communicate()[1]
    assert process.returncode == 130, error
    assert error.count("\n") == 1
    assert "go on with --resume" in error
    assert not left(process)

    process = start(output, "--resume", rows=6)
    process.kill()
    process.communicate()
    assert not left(process)
    imnet_fast_gradient.main(["--batch-size", "1", "--output", str(output), "--resume"])
    same(output, whole)
