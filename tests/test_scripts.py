"""Scripts from the shell: their manuals, arguments and exit codes, Ctrl-C, their READMEs."""

import argparse
import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import keras
import pytest
import tensorflow as tf

import common
from common import check_results, command, files, reproduce
from common.networks import mnist

METHODS = "logreg_softmax", "method1_noise_optimization", "method2_fgsm"
SCRIPTS = sorted(
    path.relative_to(files.ROOT).as_posix()
    for path in files.ROOT.glob("*/*.py")
    if "tests" not in path.parts and "command.run(main)" in path.read_text(encoding="utf-8")
)


def test_help_says_on_a_page_what_is_read_and_written_without_tensorflow(checkout, python):
    """All in one process with the imports counted; from a folder that is not the checkout."""
    code = (
        "import runpy, sys\n"
        f"for path in {SCRIPTS}:\n"
        "    for option, code in ('--help', 0), ('--no-such-option', 2):\n"
        "        sys.argv = [path, option]\n"
        "        try:\n"
        f"            runpy.run_path({str(checkout)!r} + '/' + path, run_name='__main__')\n"
        "        except SystemExit as end:\n"
        "            assert end.code == code, path\n"
        "        print(chr(0), end='', flush=True)\n"
        "assert not {'tensorflow', 'keras'} & sys.modules.keys()\n"
    )
    done = python("-c", code, cwd="/", PYTHONPATH=str(checkout), COLUMNS="80")
    assert done.returncode == 0, done.stderr
    manuals = done.stdout.split("\0")[:-1:2]
    for path, manual, error in zip(SCRIPTS, manuals, done.stderr.splitlines(), strict=True):
        for word in ("reads", "writes", f"python {path}"):
            assert word in manual
        assert manual.count("\n") <= 40, path
        assert re.fullmatch(r"\w+\.py: error: .*--no-such-option.* \(see --help\)", error)


def test_a_script_runs_from_anywhere(checkout, tmp_path, python):
    run = checkout / "common" / "generate_5k.py", "--count", 7, "--output", "here.npz"
    done = python(*run, cwd=tmp_path, PYTHONPATH=str(checkout))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "wrote here.npz"
    assert (tmp_path / "here.npz").exists()


def test_reproduce_skips_training_that_is_done(place, capsys):
    mnist.build("mlp").save_weights(mnist.weights_path("mlp"))
    assert reproduce.main(["--only", "train_mnist.py --model mlp"]) == []
    assert "not trained again" in capsys.readouterr().out


def test_reproduce_checks_the_results_that_it_wrote_and_no_older_ones(monkeypatch):
    written = [files.ROOT / "method2_fgsm" / "results_mnist_mlp.npz", files.COMMON / "mnist.npz"]
    checked = []
    monkeypatch.setitem(sys.modules, "attack", SimpleNamespace(main=lambda argv: written))
    monkeypatch.setattr(check_results, "main", lambda argv: checked.append(argv) or [])
    monkeypatch.setattr(reproduce, "STEPS", ["python attack.py"])
    assert reproduce.main([]) == written
    assert checked == [[str(written[0])]]


def test_the_steps_are_commands_of_the_readmes():
    """With the options as the script has them, and no script left out."""
    readmes = "".join(path.read_text(encoding="utf-8") for path in files.ROOT.glob("*/README.md"))
    steps = [*reproduce.STEPS, *reproduce.FULL_STEPS, reproduce.CHECK]
    for step in steps:
        _, path, *arguments = step.split()
        assert f"python {path}" in readmes, step
        manual = (files.ROOT / path).read_text(encoding="utf-8")
        manual += " --model --limit --save-images --treatments"
        assert {word for word in arguments if word.startswith("--")} <= set(
            re.findall(r"--[\w-]+", manual)
        )
    assert {step.split()[1] for step in steps} == {*SCRIPTS} - {"common/reproduce.py"}
    assert reproduce.TRAINING.keys() <= {*steps}


def test_an_attack_imports_no_other_method():
    """What sets one method beside the other is a script, or imported by scripts alone."""
    imports = {}
    for folder in ("common", *METHODS):
        for path in (files.ROOT / folder).rglob("*.py"):
            names = set()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    module = getattr(node, "module", None)
                    names |= {module or "", *(alias.name for alias in node.names)}
                    names |= {f"{module}.{alias.name}" for alias in node.names}
            imports[path.relative_to(files.ROOT).as_posix()] = names
    crossing = {
        path
        for path, names in imports.items()
        if ({name.split(".")[0] for name in names} & {*METHODS}) - {path.split("/")[0]}
    }
    assert crossing
    for path, names in imports.items():
        used = crossing & {f"{name.replace('.', '/')}.py" for name in names}
        assert path in SCRIPTS or not used, (path, used)
        assert path not in crossing or not path.startswith("common/"), path


def test_messages_name_a_file_so_that_it_is_found_from_where_one_is(tmp_path, monkeypatch):
    picture = files.ROOT / "img" / "a.png"
    monkeypatch.chdir(files.ROOT)
    assert files.show(picture) == picture.relative_to(files.ROOT).as_posix()
    assert files.show(tmp_path) == str(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert files.show(picture) == str(picture)
    assert files.show("mine.png") == "mine.png"


# The command line --------------------------------------------------------------------------------


def test_arguments_are_read():
    assert (command.pixel_size("8/255"), command.pixel_size(".03")) == (8 / 255, 0.03)
    assert command.positive_float("1e-3") == 0.001
    assert command.positive_int("2147483647") == 2**31 - 1
    assert (command.seed("0"), command.digit("9")) == (0, 9)
    assert command.path("~/a b.png") == Path.home() / "a b.png"


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


# How a script ends -------------------------------------------------------------------------------

NO_MEMORY = "error: out of memory: ask for fewer or smaller things at a time"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (command.Failure("a\nb: mend it"), 1, "error: a b: mend it"),
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
        time.sleep(100)
def main():
    threading.Thread(target=write, args=sys.argv[1:]).start()
    time.sleep(100)
signal.signal(signal.SIGINT, signal.default_int_handler)
command.run(main)
"""


def test_ctrl_c_ends_a_script_at_once_and_leaves_no_half_file(tmp_path, python):
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
        time.sleep(100)
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


def test_ctrl_c_ends_a_step_of_reproduce_that_has_a_process_of_its_own(tmp_path, python):
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


def test_keras_settings_of_the_user_change_nothing():
    """As Keras takes them from ~/.keras/keras.json; which backend, the environment says first."""
    keras.config.set_floatx("float16")
    keras.config.set_image_data_format("channels_first")
    assert mnist.build("mlp").dtype == keras.config.floatx() == "float32"
    assert keras.config.image_data_format() == "channels_last"
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def test_keras_on_another_backend_is_one_line(monkeypatch):
    keras = SimpleNamespace(config=SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setitem(sys.modules, "keras", keras)
    with pytest.raises(ImportError, match="runs on jax: import `common` before it"):
        common.set_keras()


# READMEs -----------------------------------------------------------------------------------------

PAGES = [
    page
    for folder in (".", "common", "common/images", *METHODS, "tests/benchmarks")
    for page in sorted((files.ROOT / folder).glob("*.md"))
]


def without_code(page):
    """The text of a page without its blocks of code, in which a # begins no heading."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def anchors(page):
    """What links call the headings of a page, as GitHub does it."""
    headings = re.findall(r"^#+ +(.+?) *$", without_code(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(files.ROOT)))
def test_every_link_and_anchor_leads_somewhere(page):
    prose = re.sub(r"`[^`\n]*`", "", without_code(page))
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert target.is_relative_to(files.ROOT), link
        assert not anchor or anchor in anchors(target), link
