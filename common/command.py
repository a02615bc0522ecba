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
from contextlib import contextmanager
from pathlib import Path

# The largest whole number an argument may be: more than that TensorFlow cannot count.
LARGEST = 2**31 - 1


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
    """Run a script's `main` and exit: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.

    What `main` puts into a KeyboardInterrupt (how to go on, say) is printed with it.
    """
    prog = one_line(Path(sys.argv[0]).name)
    _refuse_another_checkout(prog)
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold what the terminal cannot show; that must not end the run.
        stream.reconfigure(errors="backslashreplace")
    with _interrupts() as interrupts:
        try:
            main()
            sys.stdout.flush()
        except Failure as failure:
            # What is closed on the way out (a file of HDF5 on a full disk) has no more to say.
            sys.unraisablehook = lambda unraisable: None
            print(f"{prog}: error: {one_line(failure)}", file=sys.stderr)
            sys.exit(1)
        except BrokenPipeError:
            # Whoever read our output has gone, as in `script | head`: nobody is left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except MemoryError:
            print(f"{prog}: error: out of memory: ask for fewer or smaller things", file=sys.stderr)
            sys.exit(1)
        except BaseException as error:
            # In the middle of an import an interrupt can surface as any other error.
            if not interrupts:
                raise
            said = f": {one_line(error)}" if isinstance(error, KeyboardInterrupt) else ""
            # Below a progress bar, and the terminal's ^C.
            start = "\n" if sys.stderr.isatty() else ""
            print(f"{start}{prog}: interrupted{said.rstrip(': ')}", file=sys.stderr)
            sys.exit(130)


def _refuse_another_checkout(prog):
    """Exit with one line where the script lies in one checkout and `common` came from another.

    Both may be installed in turn into one environment; each has its own code, weights and img.
    """
    here = Path(__file__).resolve()
    script = Path(sys.argv[0]).resolve()
    beside = script.parent.parent / "common" / here.name
    if beside.is_file() and not beside.samefile(here):
        sys.exit(
            f"{prog}: error: the checkout installed is {one_line(here.parent.parent)}, not the one "
            f"of this script: run `pip install -e {one_line(script.parent.parent)}`"
        )


def _interrupted_early(kind, error, trace):
    """`sys.excepthook` of a script that still loads its packages, before `run` takes over."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"{one_line(Path(sys.argv[0]).name)}: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


# Only where a script of this collection is what runs: other programs keep their own.
_main = getattr(sys.modules["__main__"], "__file__", None)
if _main and Path(_main).resolve().parent.parent == Path(__file__).resolve().parent.parent:
    sys.excepthook = _interrupted_early


@contextmanager
def _interrupts():
    """Yields a list that grows with each SIGINT, which raises KeyboardInterrupt as usual."""
    interrupts = []

    def interrupt(number, frame):
        interrupts.append(number)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    # A shell starts what runs in the background deaf to it: so it should stay.
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


def digit(text):
    """An argument that is one of the ten digits."""
    if text not in tuple("0123456789"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a digit from 0 to 9")
    return int(text)


def positive_int(text):
    """An argument that is a whole number of at least 1 (and below 2**31)."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= LARGEST:
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
