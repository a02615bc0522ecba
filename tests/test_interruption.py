"""Scripts that are interrupted, or killed, at any moment: nothing is lost, nothing is half there.

The scripts run in processes of their own, forked from a server that has imported TensorFlow once.
(The run over photographs: test_engine.py.)
"""

import importlib
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from common import command, data, files
from common.networks import mnist

pytestmark = pytest.mark.slow

OLD = b"what an earlier run left"
MOMENTS = 2  # kills of each kind of script


def run_script(module, arguments, folder):
    """What a new process does: the script as from the shell, in folders of the test's own."""
    files.WEIGHTS, files.IMG = folder / "weights", folder / "img"
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
    sys.argv = [module.rpartition(".")[2] + ".py", *map(str, arguments)]
    command.run(importlib.import_module(module).main)


@pytest.fixture(scope="module")
def start():
    """A function: start a script in a folder that holds older files of the names `written`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["common", "tensorflow", "keras", "matplotlib.figure"])
    started = []

    def run(module, arguments, folder, written):
        for name in written:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(OLD)
        process = context.Process(target=run_script, args=(module, arguments, folder))
        process.start()
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.join(30)


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    """A folder with the weights of an MLP, as training would leave it, and a few digits."""
    folder = tmp_path_factory.mktemp("mlp")
    (folder / "weights").mkdir()
    model = mnist.build("mlp")
    model.save_weights(folder / "weights" / "mlp.weights.h5")
    x, _, indices = data.draw_samples(2000, 0)
    # Untrained, but right on these by definition.
    np.savez(folder / "samples.npz", images=x, labels=mnist.classify(model, x), indices=indices)
    return folder


def visible(folder):
    """The files below a folder without the temporary ones a killed process may leave."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not re.match(r"\.\d+\.", path.name)
    }


# The script, its arguments, and what it writes into folders that may hold an older one.
KILLED = {
    "training": (
        "logreg_softmax.train",
        "--epochs 1",
        "weights/softmax.weights.h5 weights/softmax_predictions.csv img/confusion_softmax.png",
    ),
    "attack": (
        "method1_noise_optimization.attack_mnist",
        "--method minimal --starts 1 --limit 100 --samples {}/samples.npz --output {}/attack.npz",
        "attack.npz",
    ),
}


@pytest.mark.parametrize("kind", KILLED)
def test_a_killed_run_leaves_the_old_file_or_the_new_one(start, mlp, tmp_path, kind):
    module, arguments, written = KILLED[kind]
    written = written.split()

    def run(folder, seconds):
        shutil.copytree(mlp, folder)
        process = start(module, arguments.replace("{}", str(folder)).split(), folder, written)
        process.join(seconds)
        process.kill()
        process.join(30)
        return process.exitcode

    began = time.monotonic()
    assert run(tmp_path / "whole", 120) == 0, (tmp_path / "whole" / "stderr").read_text()
    seconds = time.monotonic() - began
    before = visible(tmp_path / "whole") - {"stdout", "stderr"}

    for number in range(MOMENTS):
        folder = tmp_path / str(number)
        moment = (number + random.Random(kind).random()) / MOMENTS * seconds
        assert run(folder, moment) in (-signal.SIGKILL, 0)
        assert visible(folder) - {"stdout", "stderr"} == before
        for name in written:
            content = (folder / name).read_bytes()
            # Weights files hold the time at which they were written.
            if name.endswith(".h5") and content != OLD:
                mnist.load("softmax", folder / name)
            else:
                assert content in (OLD, (tmp_path / "whole" / name).read_bytes()), name


@pytest.mark.parametrize("kind", KILLED)
def test_an_interrupt_prints_one_line_and_exits_with_130(start, mlp, tmp_path, kind):
    module, arguments, written = KILLED[kind]
    folder = tmp_path / "run"
    shutil.copytree(mlp, folder)
    # Of two values of an option the last one counts.
    arguments += " --epochs 1000" if kind == "training" else " --method lbfgs --limit 2000"
    process = start(module, arguments.replace("{}", str(folder)).split(), folder, written.split())
    process.join(random.Random(module).uniform(1.5, 4))
    assert process.exitcode is None, "too quick to be interrupted"
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    error = (folder / "stderr").read_text()
    assert process.exitcode == 130, error
    name = module.rpartition(".")[2]
    assert re.fullmatch(rf"{name}\.py: interrupted(: [^\n]*)?\n", error), error
    for name in written.split():
        assert (folder / name).read_bytes() == OLD


@pytest.mark.parametrize("module", ["numpy", "tensorflow.python.ops"])
def test_an_interrupt_in_the_middle_of_an_import(tmp_path, module):
    """Where an extension module may turn the interrupt into an error of its own."""
    code = f"""
import importlib.abc, os, signal, sys
import common.command
for name in [name for name in sys.modules if name.startswith('numpy')]:
    del sys.modules[name]
class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
def main():
    import keras, tensorflow
sys.argv = ['script.py']
common.command.run(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(files.ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (130, "script.py: interrupted\n")
