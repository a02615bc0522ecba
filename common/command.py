"""What every script shares at the command line: its `main(argv=None)` raises `Failure` for what a
user can mend, and `run` makes that one line on stderr and an exit code."""

import argparse
import itertools
import math
import os
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Of files that are being written (files.py): what a script removes that ends at once.
TEMPORARY = set()


class Failure(Exception):
    """Its message names the file or value and the way out."""


class Parser(argparse.ArgumentParser):
    """A parser whose manual is the script's docstring and whose errors are one line."""

    def __init__(self, doc):
        super().__init__(description=doc, formatter_class=_Manual, allow_abbrev=False)

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see --help)\n")


class _Manual(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        default = action.default
        if default in (None, False, argparse.SUPPRESS) or "(default: " in action.help:
            return action.help
        parts = default if isinstance(default, list | tuple) else [default]
        shown = (from_root(part) if isinstance(part, Path) else str(part) for part in parts)
        return f"{action.help} (default: {' '.join(shown).replace('%', '%%')})"


def option(parser, name, type, default, help, **more):
    """An option in one call; where the default depends on other arguments, `help` says how."""
    parser.add_argument(name, type=type, default=default, help=help, **more)


def add_count(parser, name, help, default=None):
    option(parser, name, positive_int, default, help)


def add_seed(parser, help):
    option(parser, "--seed", seed, 0, help)


def add_output(parser, help, default=None):
    option(parser, "--output", path, default, help)


def path(text):
    """An argument that names a file or folder; ~ is the home folder."""
    return Path(os.path.expanduser(text))


def number(low, high, meaning, *, whole=False):
    """The type of an argument: a number from low to high, such as 0.03 or 8/255, or a whole one;
    `meaning` says so in the message."""

    def read(text):
        numerator, slash, denominator = text.partition("/")
        try:
            value = int(text) if whole else float(numerator) / float(denominator if slash else 1)
        except (ValueError, ZeroDivisionError):
            value = math.nan  # which lies in no range
        if not low <= value <= high:
            comma = ": write a point, not a comma" if "," in text else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not {meaning}{comma}")
        return value

    return read


digit = number(0, 9, "a digit from 0 to 9", whole=True)
# As far as TensorFlow counts.
positive_int = number(1, 2**31 - 1, "a whole number of at least 1, below 2**31", whole=True)
seed = number(0, 2**32 - 1, "a whole number from 0 to 2**32 - 1", whole=True)
positive_float = number(math.ulp(0), sys.float_info.max, "a number above 0")
probability = number(1e-300, 1 - 1e-16, "a probability above 0 and below 1")
pixel_size = number(0, 1, "between 0 and 1 (pixel units; write 8/255 for 8 of 255 grey levels)")


def one_line(message):
    """`message` on one line: a file name may hold a line break, an error message may not."""
    return " ".join(str(message).split())


def from_root(path):
    """`path` as results record it: from the repository root where it lies inside it."""
    absolute = Path(os.path.abspath(path))
    return absolute.relative_to(ROOT).as_posix() if absolute.is_relative_to(ROOT) else str(path)


def show(path):
    """`path` as messages print it: short where the working directory is the repository root."""
    return from_root(path) if Path.cwd() == ROOT else str(path)


def table(titles, rows):
    """Rows as text under their titles (or None): the first column to the left, but for numbers, the
    others to the right.  A row may end early."""
    columns = list(itertools.zip_longest(*([titles] if titles else []), *rows, fillvalue=""))
    widths = [max(len(str(cell)) for cell in column) for column in columns]
    lines = []
    for first, *others in zip(*columns, strict=True):
        cells = [f"{cell!s:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("   ".join([f"{first:{widths[0]}}", *cells]).rstrip())
    return "\n".join(lines)


def run(main):
    """Run a script's `main`, and print the names of the files that it says it wrote.  Exits with 0
    done, 1 failed, 2 wrong arguments, 130 interrupted: threads are not waited for."""
    for stream in (sys.stdout, sys.stderr):  # which may not show all that a file name may hold
        stream.reconfigure(errors="backslashreplace")
    code = 1
    try:
        for path in main() or ():
            print(f"wrote {show(path)}")
        sys.stdout.flush()
        return
    except Failure as failure:
        message = f"error: {failure}"
    except BrokenPipeError:  # as in `script | head`: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        code, message = 130, ": ".join(["interrupted", *interrupt.args])
        if sys.stderr.isatty():
            print(file=sys.stderr)  # below a progress bar, and the terminal's ^C
    except Exception as error:
        if type(error).__name__ not in ("MemoryError", "ResourceExhaustedError"):  # TensorFlow's
            raise
        message = "error: out of memory: ask for fewer or smaller things at a time"
    print(f"{one_line(Path(sys.argv[0]).name)}: {one_line(message)}", file=sys.stderr)
    if code == 130:
        leave()
    sys.exit(code)


def leave():
    """End an interrupted process at once, whatever its threads are at."""
    for path in tuple(TEMPORARY):
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(130)
