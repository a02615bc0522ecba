"""What every script of the collection shares at the command line.

A script is a module with `main(argv=None)`, which raises `Failure` for whatever a user can
mend; the last line of the file hands it to `run`, which turns that into one line on stderr
and an exit code.  Other code calls `main` directly and sees the exception itself.
"""

import argparse
import math
import os
import signal
import sys
import threading
from pathlib import Path


class Failure(Exception):
    """Something the user can mend: the message names the file or value and the way out."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a run that can be taken up again: the message says how to go on."""


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
        if action.default in (None, False) or "(default: " in action.help:
            return action.help
        return super()._get_help_string(action)


# Arguments that several scripts take -------------------------------------------------------------


def add_seed(parser, help):
    """--seed; `help` says what it decides."""
    parser.add_argument("--seed", type=seed, default=0, help=help)


def add_output(parser, help, default=None):
    """--output; where the default depends on other arguments, `help` says how."""
    parser.add_argument("--output", type=path, default=default, help=help)


# Types of arguments ------------------------------------------------------------------------------


def path(text):
    """An argument that names a file or folder; ~ is the home folder."""
    return Path(os.path.expanduser(text))


def digit(text):
    """An argument that is one of the ten digits."""
    if text not in tuple("0123456789"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a digit from 0 to 9")
    return int(text)


def positive_int(text):
    """An argument that counts: a whole number from 1 to 2**31 - 1, as far as TensorFlow counts."""
    return _whole_number(text, 1, 2**31, "a whole number of at least 1, below 2**31")


def seed(text):
    """An argument that seeds a random generator: a whole number from 0 to 2**32 - 1."""
    return _whole_number(text, 0, 2**32, "a whole number from 0 to 2**32 - 1")


def positive_float(text):
    """An argument that is a finite number above 0; 1/3 is one too."""
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def pixel_size(text):
    """An argument in pixel units, such as epsilon: a number from 0 to 1, or a fraction, 8/255."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not between 0 and 1 (pixel units; write 8/255 for 8 of 255 grey levels)"
        )
    return value


def _whole_number(text, start, stop, meaning):
    try:
        value = int(text)
    except ValueError:
        value = start - 1
    if not start <= value < stop:
        raise argparse.ArgumentTypeError(f"{text!r} is not {meaning}")
    return value


def _number(text):
    """The value of a number or fraction; NaN, which no range contains, where it is neither."""
    if "," in text:
        raise argparse.ArgumentTypeError(
            f"{text!r} has a comma: write a point, {text.replace(',', '.')}"
        )
    numerator, _, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError):
        return math.nan


# Running a script --------------------------------------------------------------------------------


def one_line(message):
    """`message` on one line: a file name may hold a line break, an error message may not."""
    return " ".join(str(message).split())


def on_terminal(stream):
    """Whether a stream writes to a terminal; notebooks replace streams by objects of their own."""
    return hasattr(stream, "isatty") and stream.isatty()


def run(main):
    """Run a script's `main` and exit: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.

    The message of an `Interrupted` (how to go on) is printed with it.
    """
    _prepare_streams()
    before = signal.getsignal(signal.SIGINT)
    interrupts = []

    def interrupt(number, frame):
        interrupts.append(number)
        raise KeyboardInterrupt

    # A shell starts what runs in the background deaf to interrupts: so it should stay.
    replaced = before is signal.default_int_handler
    replaced = replaced and threading.current_thread() is threading.main_thread()
    if replaced:
        signal.signal(signal.SIGINT, interrupt)
    try:
        code, message = _outcome(main, interrupts)
    finally:
        if replaced:
            signal.signal(signal.SIGINT, before)
    if message:
        print(f"{one_line(Path(sys.argv[0]).name)}: {one_line(message)}", file=sys.stderr)
    if code:
        sys.exit(code)


def _outcome(main, interrupts):
    """Run `main`; returns the exit code and the line for stderr."""
    try:
        _check_installation()
        main()
        sys.stdout.flush()
    except Failure as failure:
        return 1, f"error: {failure}"
    except MemoryError:
        return 1, "error: out of memory: ask for fewer or smaller things"
    except BrokenPipeError:
        # Whoever read our output has gone, as in `script | head`: nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1, None
    except BaseException as error:
        # In the middle of an import an interrupt can surface as any other error.
        if not (interrupts or isinstance(error, KeyboardInterrupt)):
            raise
        if on_terminal(sys.stderr):
            print(file=sys.stderr)  # below a progress bar, and the terminal's ^C
        return 130, f"interrupted: {error}" if isinstance(error, Interrupted) else "interrupted"
    return 0, None


def _prepare_streams():
    """Make stdout and stderr take any text, or none where they are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # This takes the closed descriptor, too, which no other file should get.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            # A file name may hold what the terminal cannot show; that must not end the run.
            stream.reconfigure(errors="backslashreplace")


def _check_installation():
    """Raise `Failure` unless `common` lies in the checkout of the script, with its data."""
    installed = Path(__file__).resolve().parent.parent
    script = Path(sys.argv[0]).resolve().parent.parent
    if script != installed and (script / "common" / "command.py").is_file():
        raise Failure(
            f"the checkout installed is {installed}, not the one of this script: "
            f"run `pip install -e {script}`"
        )
    if not (installed / "pyproject.toml").is_file():
        raise Failure(
            f"{installed} holds a copy of the code alone, without data and figures: run "
            "`pip install -e .` in the checkout, and its scripts there"
        )
