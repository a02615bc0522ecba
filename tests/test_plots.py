"""Figures are the same whatever the reader has set, and are what their names say."""

import ast
import re

import matplotlib
import numpy as np
import pytest

from common import files, plots
from common.command import Failure

HOSTILE = {
    "image.origin": "lower",
    "image.aspect": "auto",
    "text.usetex": True,
    "savefig.bbox": "tight",
    "savefig.facecolor": "black",
    "axes.xmargin": 0.4,
    "lines.linewidth": 9,
}


@plots.our_style()
def draw():
    figure = plots.figure(4, 3, "title")
    left, right = figure.subplots(1, 2)
    plots.digit(left, np.eye(28) * np.linspace(0, 1, 28), "digit")
    plots.accuracy_curves(right, np.arange(3), [("label", np.arange(3) / 2, 0, "o--")])
    return figure


def test_settings_of_the_caller_change_nothing_and_are_left_alone(tmp_path):
    plots.save(draw(), tmp_path / "plain.png")
    with matplotlib.rc_context(HOSTILE):
        before = dict(matplotlib.rcParams)
        plots.save(draw(), tmp_path / "hostile.png")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "hostile.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


def test_whatever_makes_a_figure_does_so_in_our_style():
    makers = []
    for path in files.ROOT.glob("*/*.py"):
        if path.parent.name != "tests":
            for function in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(function, ast.FunctionDef) and (
                    re.search(r"plots\.(figure|groups)\(", ast.unparse(function))
                ):
                    makers.append(function.name)
                    decorators = [ast.unparse(node) for node in function.decorator_list]
                    assert decorators == ["plots.our_style()"], (path, function.name)
    assert len(makers) > 10


def test_dollars_in_a_name_are_drawn_and_are_no_formula(tmp_path):
    name = "$5_$10"
    plots.save(plots.figure(4, 3, name), tmp_path / "a.png")
    escaped = plots.figure(4, 3, "")
    escaped.suptitle(name.replace("$", r"\$"), fontsize=14, parse_math=True)
    plots.save(escaped, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_figure_is_written_in_the_format_of_its_ending_and_repeats(tmp_path):
    starts = {"": b"\x89PNG", ".PNG": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    for ending, start in starts.items():
        path = plots.check_output(tmp_path / f"a{ending}")
        written = []
        for _ in range(2):
            plots.save(draw(), path)
            written.append(path.read_bytes())
        assert written[0].startswith(start)
        assert written[0] == written[1]
    with pytest.raises(Failure, match=r"a\.bmp: .* \.png, .*\.svg"):
        plots.check_output(tmp_path / "a.bmp")


def test_a_title_fits_its_figure_and_a_grid_its_images():
    title = "softmax regression: scores of ten digits along x + ε sign(∇J(x, 6)), x a handwritten 2"
    figure = plots.figure(3, 4, title)
    figure.add_subplot().plot([0, 1])
    figure.draw_without_rendering()
    box = figure._suptitle.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert figure.get_suptitle().split() == title.split()
    with pytest.raises(Failure, match="301 by 4 inches"):
        plots.figure(301, 4, title)
    assert [plots.grid(n, 4, 5) for n in (1, 4, 5, 99)] == [(1, 1), (4, 1), (4, 2), (4, 5)]
