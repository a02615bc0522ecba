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
from common.search import checks


def python(*arguments, **environment):
    """A process with the project on its path, ended after 40 seconds."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(files.ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=40,
    )


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
        ("pixel_size", "8 -0.1 256/255 0,5 1/0 1/ /2 nan eps"),
        ("positive_float", "0 inf 1,5"),
        ("positive_int", "0 1.5 8/2 2147483648 " + "9" * 5000),
        ("seed", "-1 4294967296"),
        ("digit", "10 ²"),
    ],
)
def test_other_arguments_are_named(kind, texts):
    for text in ["", *texts.split()]:
        point = ".*write a point" if "," in text else ""
        with pytest.raises(argparse.ArgumentTypeError, match=re.escape(repr(text)) + point):
            getattr(command, kind)(text)


NO_MEMORY = "error: out of memory: ask for fewer or smaller things at a time"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (command.Failure("a\nb: mend it"), 1, "error: a b: mend it"),
        (checks.Refused("a\nb"), 1, "error: a b"),
        (MemoryError(), 1, NO_MEMORY),
        (tf.errors.ResourceExhaustedError(None, None, ""), 1, NO_MEMORY),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("go on\nso"), 130, "interrupted: go on so"),
    ],
)
def test_what_ends_a_script_is_one_line(monkeypatch, capsys, error, code, line):
    monkeypatch.setattr(sys, "argv", ["script.py"])
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as end:
        command.run(Mock(side_effect=error))
    assert (end.value.code, capsys.readouterr().err) == (code, f"script.py: {line}\n")


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
    done = python("-c", INTERRUPTED, tmp_path / "out")
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
    done = python(tmp_path / "run.py", tmp_path / "place")
    assert (done.returncode, done.stderr) == (130, "run.py: interrupted\n")
    assert not list((tmp_path / "place").iterdir())


def test_the_reader_of_a_pipe_may_go():
    """As in `script | head`: no traceback."""
    code = "from common import command; command.run(lambda: [print(i) for i in range(10**5)])"
    pipe, env = subprocess.PIPE, {"PYTHONPATH": str(files.ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=pipe, stderr=pipe, env=env
    ) as script:
        script.stdout.readline()
        script.stdout.close()
        assert script.stderr.read() == b""
    assert script.returncode == 1


def test_keras_settings_of_the_user_change_nothing(tmp_path):
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(
        '{"floatx": "float16", "image_data_format": "channels_first", "backend": "jax"}'
    )
    code = (
        "from common.networks import mnist\n"
        "model, config = mnist.build('mlp'), __import__('keras').config\n"
        "print(model.dtype, config.image_data_format(), config.backend())\n"
    )
    done = python("-c", code, HOME=str(tmp_path))
    assert (done.stdout, done.stderr) == ("float32 channels_last tensorflow\n", "")


def test_keras_on_another_backend_is_one_line(monkeypatch):
    keras = SimpleNamespace(config=SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setitem(sys.modules, "keras", keras)
    with pytest.raises(ImportError, match="runs on jax: import `common` before it"):
        common.set_keras()
