"""What the tests share: a place of their own to write to, and three quickly trained models."""

import fcntl
import hashlib
import importlib
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common import command, data, files, results, train_mnist
from common.networks import mnist
from logreg_softmax import train

# One thread each: two processes run the tests, and most of the arrays are small.  TensorFlow
# reads this at its first operation, and so do the processes that the tests start.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


@pytest.fixture(autouse=True)
def same_networks():
    """Every run of a test makes the same networks: Keras draws their seeds from `random`."""
    random.seed(0)


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory):
    """Weights, figures and samples of the tests go to a folder of theirs."""
    folder = tmp_path_factory.mktemp("project")
    patch = pytest.MonkeyPatch()
    patch.setattr(files, "WEIGHTS", folder / "weights")
    patch.setattr(files, "IMG", folder / "img")
    patch.setattr(data, "SAMPLES", folder / "5k_samples.npz")
    yield folder
    patch.undo()


@pytest.fixture(scope="session")
def trained(own_folders, request):
    """The three models by name, trained on a part of the digits: quick, and good enough.

    They are trained once and kept in .pytest_cache, for the other processes and for later runs.
    """
    folder = request.config.cache.mkdir("trained")
    kept = folder / what_training_depends_on()
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_dir():
            for older in filter(Path.is_dir, folder.iterdir()):
                shutil.rmtree(older)
            train_into(folder / "unfinished")
            (folder / "unfinished").rename(kept)
        shutil.copytree(kept, own_folders, dirs_exist_ok=True)
    return {name: mnist.load(name) for name in mnist.NAMES}


def what_training_depends_on():
    """A digest of the code, the packages and the processor."""
    code = [*(files.COMMON / "networks").glob("*.py"), Path(__file__)]
    code += [Path(module.__file__) for module in (data, train, train_mnist)]
    contents = [path.read_bytes() for path in sorted(code)]
    processor = Path("/proc/cpuinfo")
    flags = re.search("(?m)^(flags|Features).*", processor.read_text()) if processor.exists() else 0
    instructions = os.environ.get("ONEDNN_MAX_CPU_ISA")
    machine = repr((results.versions(), flags and flags[0], instructions))
    return hashlib.sha256(b"".join([*contents, machine.encode()])).hexdigest()


def train_into(folder):
    folder.mkdir()
    real = data.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "WEIGHTS", folder / "weights")
        patch.setattr(files, "IMG", folder / "img")
        patch.setattr(data, "load", lambda split: [part[:12000] for part in real(split)])
        train.main(["--epochs", "4", "--batch-size", "50"])
        train_mnist.main(["--model", "mlp", "--epochs", "3"])
        # What costs time is the CNN: fewer steps, smaller batches, and fewer digits to test.
        patch.setattr(data, "load", lambda split: [part[:4000] for part in real(split)])
        train_mnist.main(["--model", "cnn", "--epochs", "1", "--batch-size", "80"])


@pytest.fixture(scope="session")
def digits():
    """The test digits: float32 (10000, 28, 28) and int64 (10000,)."""
    return data.load("test")


@pytest.fixture
def right(digits):
    """A function: the first test digits that a model classifies correctly."""

    def first(model, count, source=None):
        x, y = digits
        if source is not None:
            x, y = x[y == source], y[y == source]
        x, y = x[: 4 * count + 50], y[: 4 * count + 50]
        good = np.flatnonzero(mnist.classify(model, x) == y)[:count]
        return x[good], y[good]

    return first


@pytest.fixture
def few(right):
    """A function: the first digits that a model gets right, and other digits as targets."""

    def first(model, count):
        x, y = right(model, count)
        return x, (y + np.arange(count) % 9 + 1) % 10

    return first


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A checkout in which nothing has been run: for scripts in a process of their own."""
    folder = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("weights", "__pycache__", "5k_samples.npz", "results_*")
    for name in ("common", "logreg_softmax", "method1_noise_optimization", "method2_fgsm"):
        shutil.copytree(files.ROOT / name, folder / name, ignore=ignore)
    shutil.copy(files.ROOT / "pyproject.toml", folder)
    (folder / "img").mkdir()
    return folder


@pytest.fixture
def python():
    """A function: run Python with the project on its path, for 90 seconds at most."""

    def run(*arguments, cwd=None, **environment):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(files.ROOT), **environment},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=90,
        )

    return run


PRECIOUS = b"what was there before"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of weights, a folder of figures and a folder for all else, of this test alone."""
    for name in ("WEIGHTS", "IMG"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        (folder / "precious").write_bytes(PRECIOUS)
        monkeypatch.setattr(files, name, folder)
    for name in ("out.npz", "out.png"):
        (tmp_path / name).write_bytes(PRECIOUS)
    return tmp_path


@pytest.fixture
def refuses(place, capfd, monkeypatch):
    """A function: the script ends with one line with `culprit`, an exit code, and no file changed.

    It runs in this process, through `command.run` as from the shell.
    """

    def contents():
        return {path: path.is_file() and path.read_bytes() for path in place.rglob("*")}

    def run(script, *arguments, culprit, code=(1,)):
        folder, name = script.split("/")
        main = importlib.import_module(f"{folder}.{name}").main
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        before = contents()
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            command.run(main)
        error = capfd.readouterr().err
        assert end.value.code in code, error
        assert re.fullmatch(rf"{name}\.py: error: [^\n]*\n", error), error
        assert culprit in error
        assert contents() == before

    return run
