"""The one look that all figures share.

Figures are made without pyplot: no window, no global list of open figures, and a faster start.
"""

import os
import textwrap
from contextlib import contextmanager

# Our figures need no backend, and one that is not there would end the import.
os.environ.pop("MPLBACKEND", None)

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from common import command, files
from common.command import Failure

# The ten-colour cycle of Petroff (2021), "Accessible color sequences for data visualization",
# in another order and with two line styles, so that neighbours and 0 and 9 differ in both.
COLOURS = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6")
COLOURS += ("#a96b59", "#e76300", "#b9ac70", "#717581", "#000000")
LINE_STYLES = 5 * ("-",) + 5 * ("--",)

LETTERS = 9.5  # of a title, an inch
LONGEST_SIDE = 300  # inches; at 100 dots an inch, half of what Matplotlib can draw

ENDINGS = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".eps", ".ps")
METADATA = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "image.cmap": "gray",
    "svg.hashsalt": "adversarial examples",
    "text.parse_math": False,  # what a user calls a class may have two dollars in it
}


@contextmanager
def our_style():
    """In the block, or the function, Matplotlib has its own defaults and our style, whatever the
    user has set.  Settings are taken when a thing is drawn: what makes a figure is decorated.
    """
    with matplotlib.style.context(["default", STYLE]):
        yield


def check_output(path, args=None):
    """`files.check_output` for a figure, whose ending says how it is written."""
    if path.suffix and path.suffix.lower() not in ENDINGS:
        endings = ", ".join(ENDINGS)
        raise Failure(f"cannot write {files.show(path)}: a figure's name ends in {endings}")
    return files.check_output(path, args)


@our_style()
def figure(width, height, title):
    """A new figure of `width` by `height` inches in the shared style, with its title."""
    if max(width, height) > LONGEST_SIDE:
        raise Failure(
            f"the figure would be {width:.0f} by {height:.0f} inches, more than {LONGEST_SIDE}: "
            "ask for fewer rows, columns or images"
        )
    fig = Figure(figsize=(width, height), layout="constrained")
    lines = (textwrap.fill(line, max(20, int(width * LETTERS))) for line in title.split("\n"))
    fig.suptitle("\n".join(lines), fontsize=14)
    return fig


def grid(count, columns, rows):
    """How many columns and rows of a grid `count` images fill: (columns, rows), at most these."""
    columns = min(columns, count)
    return columns, min(rows, -(-count // columns))


@our_style()
def groups(count, columns, rows, size, inches, title):
    """`count` groups of `size` axes side by side, on a grid of at most `columns` by `rows` groups.

    inches: width and height of a group, and the height beside them.
    Returns (figure, axes (count, size) in reading order).
    """
    columns, rows = grid(count, columns, rows)
    fig = figure(inches[0] * columns, inches[1] * rows + inches[2], title)
    axes = fig.subplots(rows, size * columns, squeeze=False).reshape(-1, size)
    hide(axes[count:])
    return fig, axes[:count]


def stacked_pairs(axes, count):
    """The axes (rows, columns) of a grid as `count` pairs, one above the other."""
    pairs = axes.reshape(-1, 2, axes.shape[1]).swapaxes(1, 2).reshape(-1, 2)
    hide(pairs[count:])
    return pairs[:count]


def hide(axes):
    """Draw nothing of these axes."""
    for ax in axes.flat:
        ax.set_visible(False)


@our_style()
def photo_groups(groups, columns, rows, headings, hits, inches, fontsize, title):
    """The same of photographs: a list of (height, width, 3) in [0, 1] for each group, under its
    heading, which is grey where it is no hit."""
    columns, rows = grid(len(groups), columns, rows)
    fig = figure(inches[0] * columns, inches[1] * rows + inches[2], title)
    cells, axes = fig.subfigures(rows, columns, squeeze=False).flat, []
    for cell, group, heading, hit in zip(cells, groups, headings, hits, strict=False):
        axes.append(cell.subplots(1, len(group)))
        for ax, image in zip(axes[-1], group, strict=True):
            photo(ax, image)
        cell.suptitle(heading, fontsize=fontsize, color="black" if hit else "#888888")
    return fig, axes


@our_style()
def save(fig, path):
    """Write a figure in the format that the ending of `path` says, as PNG where it has none.

    The same figure gives the same bytes, but for PostScript, which keeps its date.
    """
    suffix = path.suffix.lower() or ".png"
    with files.replacing(path) as temporary:
        fig.savefig(temporary, format=suffix[1:], metadata=METADATA.get(suffix))


def digit(ax, image, title=None):
    """Draw one image in [0, 1]: (h, w) or (h, w, 1) in grey, white ink on black, or (h, w, 3)."""
    if image.ndim == 3:
        image = image.clip(0, 1) if image.shape[2] == 3 else image.mean(axis=2)
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    _bare(ax, title)


def photo(ax, image, title=None):
    """Draw one photograph (height, width, 3) in [0, 1]."""
    ax.imshow(image.clip(0, 1))
    _bare(ax, title)


def noise(ax, image, limit, title=None):
    """Draw one noise image in a diverging map from -limit to limit, or in colour (h, w, 3) with
    grey for zero.  Returns what a colour bar is made from."""
    if image.ndim == 3:
        image = 0.5 + image / (2 * limit) if image.shape[2] == 3 else image.mean(axis=2)
    drawn = ax.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
    _bare(ax, title)
    return drawn


def _bare(ax, title):
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if title is not None:
        ax.set_title(title)


def accuracy_curves(ax, eps, curves):
    """Draw accuracies against epsilon (k,): curves of (label, accuracies (k,) from 0 to 1, index in
    `COLOURS`, marker and line as in "o--")."""
    for label, accuracy, colour, line in curves:
        ax.plot(eps, 100 * accuracy, line, color=COLOURS[colour], label=label)
    ax.set(xlabel="ε (pixel units)", ylabel="accuracy (%)", ylim=(-2, 102))


@our_style()
def confusion(counts, title):
    """A confusion matrix (10, 10) as a figure: off the diagonal the darker the more frequent."""
    fig = figure(7, 6.6, title)
    ax = fig.add_subplot()
    share = counts / counts.sum(axis=1, keepdims=True).clip(1)
    # The diagonal would drown the errors: the colours end where one in fifty goes wrong.
    drawn = ax.imshow(share * 100, cmap="Blues", vmin=0, vmax=2)
    middle = {"ha": "center", "va": "center", "size": 10}
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if share[row, column] > 0.012 else "black"
        weight = "bold" if row == column else "normal"
        ax.text(column, row, count, color=colour, weight=weight, **middle)
    digits = range(len(counts))
    ax.set(xticks=digits, yticks=digits, xlabel="predicted digit", ylabel="actual digit")
    ax.grid(False)
    fig.colorbar(drawn, ax=ax, shrink=0.85, label="share of the row, in % (dark from 2 %)")
    return fig


def add_arguments(parser, default, *, rows, columns):
    """RESULTS.npz, by default one from the repository root, and --rows and --columns."""
    default = files.ROOT / default
    command.option(parser, "results", command.path, default, "the result file", nargs="?")
    command.add_count(parser, "--rows", "images down", rows)
    command.add_count(parser, "--columns", "images across", columns)


def label(config, place):
    """What figures call a class: its name, where the settings have the names of the classes."""
    names = config.get("names")
    return names[place] if isinstance(names, list) and place < len(names) else str(place)
