"""Every script answers, refuses and draws the way the README says."""

import ast
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from common import files, plots, reproduce
from common.command import Failure
from common.networks import mnist

SCRIPTS = sorted(
    path.relative_to(files.ROOT).as_posix()
    for path in files.ROOT.glob("*/*.py")
    if "tests" not in path.parts and "command.run(main)" in path.read_text(encoding="utf-8")
)


def test_help_works_without_docstrings(checkout):
    """Under `python -OO`, all in one process: the manuals say less."""
    code = (
        "import contextlib, io, runpy, sys\n"
        f"for path in {SCRIPTS}:\n"
        "    sys.argv = [path, '--help']\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(io.StringIO()) as manual:\n"
        f"            runpy.run_path({str(checkout)!r} + '/' + path, run_name='__main__')\n"
        "    except SystemExit as end:\n"
        "        print(path, end.code, '--help' in manual.getvalue())\n"
    )
    done = subprocess.run(
        [sys.executable, "-OO", "-c", code],
        env={"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin"},
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{path} 0 True" for path in SCRIPTS]


def test_help_says_what_is_read_and_written_without_tensorflow(checkout):
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
        env={"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    manuals = done.stdout.split("\0")[:-1:2]
    for path, manual, error in zip(SCRIPTS, manuals, done.stderr.splitlines(), strict=True):
        for word in ("reads", "writes", f"python {path}"):
            assert word in manual
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
    assert reproduce.main(["--only", "train_mlp"]) == []
    assert "not trained again" in capsys.readouterr().out


def test_reproduce_checks_the_results_that_it_wrote_and_no_older_ones(monkeypatch):
    written = [files.ROOT / "method2_fgsm" / "results_mnist_mlp.npz", files.COMMON / "mnist.npz"]
    checked = []
    monkeypatch.setitem(sys.modules, "attack", SimpleNamespace(main=lambda argv: written))
    monkeypatch.setitem(
        sys.modules, "check", SimpleNamespace(main=lambda argv: checked.append(argv) or [])
    )
    monkeypatch.setattr(reproduce, "STEPS", (("attack", "attack", ()),))
    monkeypatch.setattr(reproduce, "CHECK", ("check", "check", ()))
    assert reproduce.main([]) == written
    assert checked == [[str(written[0])]]


def test_methods_import_from_common_and_themselves_only():
    folders = {"common", "logreg_softmax", "method1_noise_optimization", "method2_fgsm"}
    for path in files.ROOT.glob("*/*.py"):
        here = path.parent.name
        # What sets one method beside the other has to cross.
        if here not in folders or path.name in (
            "reproduce.py",
            "exact.py",
            "nearest.py",
            "robust_gradients.py",
            "robustness.py",
            "transferability.py",
        ):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            used = {name.split(".")[0] for name in names} & folders
            assert used <= {here, "common"}, path


def test_a_title_fits_its_figure_and_a_grid_its_images():
    title = "softmax regression: scores of ten digits along x + ε sign(∇J(x, 6)), x a handwritten 2"
    figure = plots.figure(3, 4, title)
    figure.add_subplot().plot([0, 1])
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert figure.get_suptitle().split() == title.split()
    # A title that fits is as it was, with its own line break.
    assert plots.figure(16, 4, "one\ntwo").get_suptitle() == "one\ntwo"
    with pytest.raises(Failure, match="301 by 4 inches"):
        plots.figure(301, 4, title)
    assert [plots.grid(n, 4, 5) for n in (1, 3, 4, 5, 20, 99)] == [
        (1, 1), (3, 1), (4, 1), (4, 2), (4, 5), (4, 5)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.SVG", b"<?xml"), ("a", b"\x89PNG")],
)
def test_a_figure_is_of_the_kind_its_name_says_and_repeats(tmp_path, name, start):
    written = []
    for _ in range(2):
        figure = plots.figure(3, 3, "title")
        figure.add_subplot().plot([0, 1])
        plots.save(figure, tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0].startswith(start)
    assert written[0] == written[1]


def test_messages_name_a_file_so_that_it_is_found_from_where_one_is(tmp_path, monkeypatch):
    picture = files.ROOT / "img" / "a.png"
    monkeypatch.chdir(files.ROOT)
    assert files.show(picture) == picture.relative_to(files.ROOT).as_posix()
    assert files.show(tmp_path) == str(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert files.show(picture) == str(picture)
    assert files.show("mine.png") == "mine.png"
