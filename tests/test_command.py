"""The command line that scripts share: arguments, streams, exit codes."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import tensorflow as tf

import common
from common import command, files


def test_arguments_are_read():
    assert command.pixel_size("8/255") == 8 / 255
    assert [command.pixel_size(text) for text in (".03", "1", "0")] == [0.03, 1, 0]
    assert command.positive_float("1e-3") == 0.001
    assert command.positive_int("2147483647") == 2**31 - 1
    assert (command.seed("0"), command.digit("9")) == (0, 9)
    assert command.path("~/a b.png") == Path.home() / "a b.png"
    assert command.path("a~") == Path("a~")


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("pixel_size", "8 -0.1 256/255 0,5 1/0 1/ /2 1/2/3 nan eps"),
        ("positive_float", "0 -1 inf 1e999 1,5 x"),
        ("positive_int", "0 -1 1.5 1e3 1,5 8/2 2147483648 " + "9" * 5000),
        ("seed", "-1 4294967296 one"),
        ("digit", "10 -1 ² six"),
    ],
)
def test_other_arguments_are_named(kind, texts):
    for text in ["", *texts.split()]:
        with pytest.raises(argparse.ArgumentTypeError, match=re.escape(repr(text))):
            getattr(command, kind)(text)
    with pytest.raises(argparse.ArgumentTypeError, match=r"write a point, 0\.03$"):
        command.pixel_size("0,03")


def outcome(monkeypatch, main):
    """The exit code of a script with that `main`."""
    monkeypatch.setattr(sys, "argv", ["script.py"])
    monkeypatch.setattr(os, "_exit", sys.exit)
    try:
        command.run(main)
    except SystemExit as end:
        return end.code
    return 0


NO_MEMORY = "out of memory: ask for fewer or smaller things at a time"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (command.Failure("a\nb: mend it"), 1, "script.py: error: a b: mend it\n"),
        (MemoryError(), 1, f"script.py: error: {NO_MEMORY}\n"),
        (tf.errors.ResourceExhaustedError(None, None, ""), 1, f"script.py: error: {NO_MEMORY}\n"),
        (command.Refused("a\nb"), 1, "script.py: error: a b\n"),
        (KeyboardInterrupt(), 130, "script.py: interrupted\n"),
        (command.Interrupted("go on\nso"), 130, "script.py: interrupted: go on so\n"),
    ],
)
def test_what_ends_a_script_is_one_line(monkeypatch, capsys, error, code, line):
    assert outcome(monkeypatch, Mock(side_effect=error)) == code
    assert capsys.readouterr().err == line


INTERRUPTED = """
import os, signal, sys, threading, time
from common import command, files
def write(path):
    with files.replacing(path) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
def main():
    threading.Thread(target=write, args=sys.argv[1:]).start()
    time.sleep(60)
signal.signal(signal.SIGINT, signal.default_int_handler)
command.run(main)
"""


def test_ctrl_c_ends_a_script_at_once_and_leaves_no_half_file(tmp_path):
    """Also where a thread writes it, which an interrupt does not reach."""
    (tmp_path / "out").write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, tmp_path / "out"],
        env={**os.environ, "PYTHONPATH": str(files.ROOT)},
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert (done.returncode, done.stderr) == (130, "-c: interrupted\n")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "old")]


STEP = """
import pathlib, sys, time
from common import files
def main(argv):
    with files.replacing(pathlib.Path(argv[0]) / "out") as temporary:
        temporary.write_text("half")
        time.sleep(60)
"""
REPRODUCED = """
import os, signal, sys, threading, time
from common import command, reproduce
def strike():
    while not os.listdir(sys.argv[1]):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
if __name__ == "__main__":
    reproduce.STEPS, reproduce.SIDE_BY_SIDE = ["python steps/one.py " + sys.argv[1]], ("one",)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=strike, daemon=True).start()
    command.run(lambda: reproduce.main([]))
"""


def test_ctrl_c_ends_a_step_of_reproduce_that_has_a_process_of_its_own(tmp_path):
    (tmp_path / "run.py").write_text(REPRODUCED)
    for folder in ("steps", "place"):
        (tmp_path / folder).mkdir()
    (tmp_path / "steps" / "one.py").write_text(STEP)
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py", tmp_path / "place"],
        env={**os.environ, "PYTHONPATH": str(files.ROOT)},
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert (done.returncode, done.stderr) == (130, "run.py: interrupted\n")
    assert not list((tmp_path / "place").iterdir())


def test_the_reader_of_a_pipe_may_go():
    """As in `script | head`: no traceback."""
    code = "from common import command; command.run(lambda: [print(i) for i in range(10**5)])"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(files.ROOT)},
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1


def test_keras_settings_of_the_user_change_nothing(tmp_path):
    """Another backend, number and image format in ~/.keras/keras.json: the same bytes."""
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(
        '{"floatx": "float16", "image_data_format": "channels_first", "backend": "jax"}'
    )
    code = (
        "import sys\n"
        "from common import data\n"
        "from common.networks import mnist\n"
        "assert not {'tensorflow', 'keras'} & sys.modules.keys()\n"
        "import keras\n"
        "keras.utils.set_random_seed(0)\n"
        "logits = mnist.predict(mnist.build('cnn'), data.load('test')[0][:9]).tobytes().hex()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "print(logits)\n"],
        env={**os.environ, "PYTHONPATH": str(files.ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    here = {}
    exec(code.replace("assert", "#"), here)
    assert done.stdout.splitlines()[-1] == here["logits"]


def test_keras_on_another_backend_is_one_line(monkeypatch):
    keras = SimpleNamespace(config=SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setitem(sys.modules, "keras", keras)
    with pytest.raises(ImportError, match="runs on jax: import `common` before it"):
        common.set_keras()
