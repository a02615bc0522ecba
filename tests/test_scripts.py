"""Every script answers, refuses and draws the way the README says."""

import ast
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

from common import files, models, plots, reproduce
from common.command import Failure
from method2_fgsm import epsilon, source_to_target, two_to_six

SCRIPTS = sorted(
    path.relative_to(files.ROOT).as_posix()
    for path in files.ROOT.glob("*/*.py")
    if "tests" not in path.parts and "command.run(main)" in path.read_text(encoding="utf-8")
)


def test_the_scripts_are_found():
    assert {"common/reproduce.py", "method2_fgsm/epsilon.py"} <= set(SCRIPTS)


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


def test_missing_weights_end_with_one_line(script, checkout):
    done = script("method2_fgsm/epsilon.py", "--model", "cnn")
    assert done.returncode == 1
    assert re.fullmatch(
        r"epsilon\.py: error: .*common/weights/cnn\.weights\.h5 not found: .*--model cnn` first\n",
        done.stderr,
    )
    assert list((checkout / "img").iterdir()) == []


def test_a_script_runs_from_anywhere(script, tmp_path):
    done = script("common/generate_5k.py", "--count", "7", "--output", "here.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "wrote here.npz"
    assert (tmp_path / "here.npz").exists()


@pytest.mark.parametrize("model", models.NAMES)
def test_epsilon_draws_two_panels_an_image(trained, tmp_path, capsys, model):
    output = tmp_path / "e.png"
    epsilon.main(["--model", model, "--count", "3", "--output", str(output)])
    np.testing.assert_allclose(imread(output).shape[:2], (640, 1020), atol=1)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == f"wrote {output}"
    assert "correctly classified 2s into a 6" in printed


def test_softmax_regression_is_a_straight_line_in_epsilon(trained, right):
    from method2_fgsm import fgsm

    x, _ = right(trained["softmax"], 4, source=2)
    sign = fgsm.gradient_sign(trained["softmax"], x, np.full(4, 6)).numpy()
    eps = np.linspace(-1, 1, 11, dtype=np.float32)
    raw = epsilon.scores(trained["softmax"], x, sign, eps, clip=False)
    assert np.abs(np.diff(raw, n=2, axis=1)).max() < 1e-3
    clipped = epsilon.scores(trained["softmax"], x, sign, eps, clip=True)
    assert np.abs(np.diff(clipped, n=2, axis=1)).max() > 0.1
    # The loss falls as epsilon does: the score of the 6 is highest at the left end.
    assert (raw[:, 0, 6] > raw[:, -1, 6]).all()


@pytest.mark.parametrize("model", models.NAMES)
def test_two_to_six_draws_and_reports(trained, tmp_path, capsys, model):
    output = tmp_path / "t.png"
    two_to_six.main(["--model", model, "--count", "4", "--output", str(output)])
    np.testing.assert_allclose(imread(output).shape[:2], (660, 1440), atol=1)
    rows = re.findall(r"^ +\d+   0\.\d{4} .*?(\d)$", capsys.readouterr().out, re.M)
    assert rows == ["6"] * 4


def test_two_to_six_with_a_fixed_eps_and_other_digits(trained, tmp_path, capsys):
    output = tmp_path / "t.png"
    digits = ["--model", "mlp", "--source", "7", "--target", "3"]
    two_to_six.main([*digits, "--count", "1", "--eps", "0.125", "--output", str(output)])
    printed = capsys.readouterr().out
    assert "0.1250" in printed
    assert "P(7) before" in printed
    assert output.stat().st_size > 0


def test_the_chosen_images_are_the_first_that_work(trained, digits):
    """Against the definition, one image after the other."""
    from method2_fgsm import fgsm

    x, y = digits
    model = trained["cnn"]
    choice = source_to_target.choose(model, 2, 6, 3)
    works, tried = [], 0
    for index in np.flatnonzero(y == 2):
        if models.classify(model, x[[index]])[0] == 2:
            tried += 1
            if np.isfinite(fgsm.smallest_eps(model, x[[index]], np.array([6]))[0][0]):
                works.append(index)
        if len(works) == 3:
            break
    assert choice.indices.tolist() == works
    assert (choice.tried, choice.reachable) == (tried, 3)


def test_too_few_images_of_the_digit(trained):
    with pytest.raises(Failure, match=r"--count 5000: .* classifies only"):
        epsilon.main(["--count", "5000"])


def test_reproduce_names_its_steps_and_skips_training_that_is_done(trained, capsys):
    assert reproduce.main(["--only", "train_mlp"]) == []
    assert "not trained again" in capsys.readouterr().out
    names = [step[0] for step in (*reproduce.STEPS, *reproduce.FULL_STEPS, reproduce.CHECK)]
    assert len(names) == len(set(names))


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
            "compare_methods.py",
            "exact.py",
            "transfer.py",
        ):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            used = {name.split(".")[0] for name in names} & folders
            assert used <= {here, "common"}, path


@pytest.mark.parametrize(
    ("main", "arguments", "name"),
    [
        (epsilon.main, ("--count", "1"), "epsilon_softmax.png"),
        (epsilon.main, ("--count", "1", "--source", "3"), "epsilon_softmax_3_to_6.png"),
        (two_to_six.main, ("--count", "1", "--source", "3"), "3s_softmax.png"),
        (two_to_six.main, ("--count", "1", "--target", "8"), "2s_as_8s_softmax.png"),
    ],
)
def test_figures_of_other_digits_get_another_name(
    trained, tmp_path, monkeypatch, main, arguments, name
):
    monkeypatch.setattr(files, "IMG", tmp_path)
    assert main(list(arguments)) == [tmp_path / name]
    assert [path.name for path in tmp_path.iterdir()] == [name]


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
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert files.show(picture) == str(picture)
