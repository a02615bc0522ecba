"""What every script of the collection shares at the command line.

A script is a module with `main(argv=None)`, which raises `Failure` for whatever a user can
mend; the last line of the file hands it to `run`, which turns that into one line on stderr
and an exit code.  Other code calls `main` directly and sees the exception itself.
"""

import argparse
import math
import sys
from pathlib import Path


class Failure(Exception):
    """Something the user can mend: the message names the file or value and the way out."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose manual is the script's docstring and whose errors are one line.

    Defaults are shown by `--help`; an error prints `SCRIPT: error: …` and exits with 2.
    """

    def __init__(self, doc):
        super().__init__(description=doc, formatter_class=_Manual, allow_abbrev=False)

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see --help)\n")


class _Manual(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        if action.default in (None, False):
            return action.help
        return super()._get_help_string(action)


def one_line(message):
    """`message` on one line: a file name may hold a line break, an error message may not."""
    return " ".join(str(message).split())


def run(main):
    """Run a script's `main` and exit: 0 done, 1 failed, 2 wrong arguments, 130 interrupted."""
    prog = Path(sys.argv[0]).name
    try:
        main()
    except Failure as failure:
        print(f"{prog}: error: {one_line(failure)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\n{prog}: interrupted", file=sys.stderr)
        sys.exit(130)


def digit(text):
    """An argument that is one of the ten digits."""
    if text not in tuple("0123456789"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a digit from 0 to 9")
    return int(text)


def positive_int(text):
    """An argument that is a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def seed(text):
    """An argument that seeds a random generator: a whole number from 0 to 2**32 - 1."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2**32 - 1")
    return value


def positive_float(text):
    """An argument that is a finite number above 0."""
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def pixel_size(text):
    """An argument in pixel units: a number from 0 to 1, such as epsilon."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1 (pixel units)")
    return value


def _number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan
