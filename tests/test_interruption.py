"""Scripts that are interrupted, or killed, at any moment: nothing is lost, nothing is half there.

The scripts run in processes of their own, forked from a server that has imported TensorFlow once.
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

from common import command, data, files, models, results
from common.imagenet import rows

pytestmark = pytest.mark.slow

OLD = b"what an earlier run left"
MOMENTS = 3  # kills of each kind of script


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
    """A function: start a script, `start(module, arguments, folder)`; returns the process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["common", "tensorflow", "keras", "matplotlib.figure"])
    started = []

    def run(module, arguments, folder):
        for name in ("weights", "img"):
            (folder / name).mkdir(parents=True, exist_ok=True)
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
    model = models.build("mlp")
    model.save_weights(folder / "weights" / "mlp.weights.h5")
    x, _, indices = data.draw_samples(2000, 0)
    # Untrained, but right on these by definition.
    np.savez(folder / "samples.npz", images=x, labels=models.classify(model, x), indices=indices)
    return folder


def moments(seed, seconds):
    """When to strike: seeded, spread over the whole of a run that takes so long."""
    rng = random.Random(seed)
    return [(part + rng.random()) / MOMENTS * seconds for part in range(MOMENTS)]


def kill_after(process, seconds):
    process.join(seconds)
    process.kill()
    process.join(30)
    return process.exitcode


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
        "--epochs 2",
        "weights/softmax.weights.h5 weights/softmax_predictions.csv img/confusion_softmax.png",
    ),
    "attack": (
        "method1_noise_optimization.attack_mnist",
        "--method minimal --limit 300 --samples {}/samples.npz --output {}/attack.npz",
        "attack.npz",
    ),
}


@pytest.mark.parametrize("kind", KILLED)
def test_a_killed_run_leaves_the_old_file_or_the_new_one(start, mlp, tmp_path, kind):
    module, arguments, written = KILLED[kind]
    written = written.split()
    whole = tmp_path / "whole"
    shutil.copytree(mlp, whole)
    began = time.monotonic()
    process = start(module, arguments.replace("{}", str(whole)).split(), whole)
    process.join(120)
    assert process.exitcode == 0, (whole / "stderr").read_text()
    seconds = time.monotonic() - began

    for number, moment in enumerate(moments(kind, seconds)):
        folder = tmp_path / str(number)
        shutil.copytree(mlp, folder)
        (folder / "img").mkdir()
        for name in written:
            (folder / name).write_bytes(OLD)
        before = visible(folder)
        process = start(module, arguments.replace("{}", str(folder)).split(), folder)
        assert kill_after(process, moment) in (-signal.SIGKILL, 0)
        assert visible(folder) - {"stdout", "stderr"} == before
        for name in written:
            content = (folder / name).read_bytes()
            # Weights files hold the time at which they were written.
            new = (whole / name).read_bytes()
            if name.endswith(".h5") and content != OLD:
                assert len(content) == len(new)
                models.load("softmax", folder / name)
            else:
                assert content in (OLD, new), name


def test_a_photo_run_that_is_killed_again_and_again_ends_as_an_uninterrupted_one(start, tmp_path):
    arguments = ("--batch-size", 2, "--output")
    module = "method2_fgsm.imnet_fast_gradient"
    began = time.monotonic()
    process = start(module, [*arguments, tmp_path / "whole.csv"], tmp_path)
    process.join(120)
    assert process.exitcode == 0, (tmp_path / "stderr").read_text()
    seconds = time.monotonic() - began

    output = tmp_path / "cut.csv"
    for path in (output, output.with_suffix(".npz")):
        path.write_bytes(OLD)
    options = [*arguments, output]
    for moment in moments("photographs", seconds):
        process = start(module, options, tmp_path)
        done = kill_after(process, moment)
        if done == 0:
            break
        assert done == -signal.SIGKILL
        assert output.read_bytes() == OLD
        if rows.partial(output.with_suffix(".npz")).exists():
            options = [*arguments, output, "--resume"]
    if done:
        process = start(module, options, tmp_path)
        process.join(120)
        assert process.exitcode == 0, (tmp_path / "stderr").read_text()
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    one, other = (results.load(tmp_path / f"{name}.npz") for name in ("whole", "cut"))
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


INTERRUPTED = {
    "logreg_softmax.train": "--epochs 1000",
    "method1_noise_optimization.attack_mnist": (
        "--method lbfgs --samples {}/samples.npz --output {}/attack.npz"
    ),
    "method2_fgsm.imnet_fast_gradient": "--images {}/photographs --output {}/out.csv",
}


@pytest.mark.parametrize("module", INTERRUPTED)
def test_an_interrupt_prints_one_line_and_exits_with_130(start, mlp, tmp_path, module):
    folder = tmp_path / "run"
    shutil.copytree(mlp, folder)
    (folder / "photographs").mkdir()
    for number in range(300):
        os.symlink(files.COMMON / "images" / "coffee.jpg", folder / "photographs" / f"{number}.jpg")
    before = visible(folder)
    process = start(module, INTERRUPTED[module].replace("{}", str(folder)).split(), folder)
    process.join(random.Random(module).uniform(1.5, 4))
    assert process.exitcode is None, "too quick to be interrupted"
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    error = (folder / "stderr").read_text()
    assert process.exitcode == 130, error
    name = module.rpartition(".")[2]
    assert re.fullmatch(rf"{name}\.py: interrupted(: [^\n]*)?\n", error), error
    left = visible(folder) - before
    assert left <= {"stdout", "stderr", "out.partial.csv", "out.partial.npz"}
    if "out.partial.csv" in left:
        assert "go on with --resume" in error


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
