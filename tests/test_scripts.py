"""Every script answers, refuses and draws the way the README says."""

import ast
import re
import subprocess
import sys
from types import SimpleNamespace

from common import check_results, files, reproduce
from common.networks import mnist

SCRIPTS = sorted(
    path.relative_to(files.ROOT).as_posix()
    for path in files.ROOT.glob("*/*.py")
    if "tests" not in path.parts and "command.run(main)" in path.read_text(encoding="utf-8")
)


def test_help_says_on_a_page_what_is_read_and_written_without_tensorflow(checkout):
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
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env={"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin", "COLUMNS": "80"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    manuals = done.stdout.split("\0")[:-1:2]
    for path, manual, error in zip(SCRIPTS, manuals, done.stderr.splitlines(), strict=True):
        for word in ("reads", "writes", f"python {path}"):
            assert word in manual
        assert manual.count("\n") <= 40, path
        assert re.fullmatch(r"\w+\.py: error: .*--no-such-option.* \(see --help\)", error)


def test_a_script_runs_from_anywhere(checkout, tmp_path):
    command = [sys.executable, checkout / "common" / "generate_5k.py", "--count", "7"]
    env = {"PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [*command, "--output", "here.npz"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
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
        manual = (files.ROOT / path).read_text(encoding="utf-8") + " --model --limit"
        assert {word for word in arguments if word.startswith("--")} <= set(
            re.findall(r"--[\w-]+", manual)
        )
    assert {step.split()[1] for step in steps} == {*SCRIPTS} - {"common/reproduce.py"}
    assert reproduce.TRAINING.keys() <= {*steps}


def test_an_attack_imports_no_other_method():
    """What sets one method beside the other is a script, or imported by scripts alone."""
    methods = {"logreg_softmax", "method1_noise_optimization", "method2_fgsm"}
    imports = {}
    for folder in ("common", *methods):
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
        if ({name.split(".")[0] for name in names} & methods) - {path.split("/")[0]}
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
