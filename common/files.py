"""Where files live, and how they are written so that nothing is ever half there."""

import os
from contextlib import contextmanager
from pathlib import Path

from common.command import Failure, one_line

ROOT = Path(__file__).resolve().parent.parent
COMMON = ROOT / "common"
WEIGHTS = COMMON / "weights"
IMG = ROOT / "img"


def show(path):
    """`path` as messages print it: from the repository root where it lies inside it."""
    path = Path(path)
    absolute = path if path.is_absolute() else Path.cwd() / path
    try:
        return absolute.relative_to(ROOT).as_posix()
    except ValueError:
        return str(path)


def reason(error):
    """What went wrong, in the operating system's words where it has any."""
    return one_line(getattr(error, "strerror", None) or error)


def check_output(path):
    """Return `path` if a file can be written there; raise `Failure` before any work is done.

    The project's own output folders (img, common/weights) are made when they are missing; any
    other folder has to exist, since a mistyped name should not become a new folder.
    """
    path = Path(path)
    if path.parent in (IMG, WEIGHTS):
        path.parent.mkdir(exist_ok=True)
    if not path.parent.is_dir():
        raise Failure(f"cannot write {show(path)}: the folder {show(path.parent)} does not exist")
    if path.is_dir():
        raise Failure(f"cannot write {show(path)}: it is a folder; name a file")
    with replacing(path):
        pass
    return path


@contextmanager
def replacing(path):
    """Yield a temporary name beside `path`; on success the file there takes `path`'s place.

    When the block raises, or the process dies, what stood at `path` before is untouched.  A
    block that writes nothing changes nothing.  The temporary name keeps the suffix, from which
    Keras and Matplotlib choose the format.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        temporary.touch()
        yield temporary
        if temporary.stat().st_size:
            os.replace(temporary, path)
    except OSError as error:
        raise Failure(f"cannot write {show(path)}: {reason(error)}") from error
    finally:
        # The rename took it away, or nothing was written, or the block failed.
        temporary.unlink(missing_ok=True)
