"""Where files live, and how they are written so that nothing is ever half there."""

import hashlib
import itertools
import os
import re
import secrets
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from common.command import ROOT, TEMPORARY, Failure, one_line, show

COMMON = ROOT / "common"
WEIGHTS = COMMON / "weights"
IMG = ROOT / "img"


def plain(name):
    """The name of a class as a part of a file's name: "T-shirt/top" becomes T_shirt_top."""
    return re.sub(r"\W+", "_", name)


def reason(error):
    """What went wrong, in the operating system's words if it has any."""
    return one_line(getattr(error, "strerror", None) or error)


def check_input(path, *, remedy):
    """Raise `Failure`, with `remedy` as the way out, unless `path` is a file: no folder or pipe."""
    if not os.path.isfile(path):
        problem = "is not a file" if os.path.lexists(path) else "not found"
        raise Failure(f"{show(path)} {problem}: {remedy}")


def check_output(path, args=None, inputs=()):
    """Return `path` if a file can be written there, and is none of the paths among the script's
    arguments `args` and `inputs`; raise `Failure` before any work is done."""
    values = () if args is None else vars(args).values()
    named = (value if isinstance(value, list) else [value] for value in values)
    for other in itertools.chain(*named, inputs):
        if isinstance(other, Path) and other is not path and _same_file(path, other):
            raise Failure(f"cannot write {show(path)}: this run has it for something else too")
    with replacing(path):
        pass
    return path


def _same_file(one, other):
    """Also by another spelling, through a link, or in capitals where they make no difference."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # not both are there
        return os.path.realpath(one) == os.path.realpath(other)


def sha256(path):
    """The SHA-256 of a file, in hexadecimal; raises `Failure` when it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise Failure(f"cannot read {show(path)}: {reason(error)}") from error


@contextmanager
def replacing(path):
    """Yield a temporary name beside `path`, with its suffix; the file there takes `path`'s place.

    When the block raises or writes nothing, or the process dies, what stood at `path` before stays.
    A link's target is replaced.  Of missing folders only our own (img, common/weights) are made.
    """
    with writing(path):
        target = Path(os.path.realpath(path))
        if target.parent in (IMG, WEIGHTS):
            target.parent.mkdir(exist_ok=True)
        if not target.parent.is_dir():
            raise Failure(f"cannot write {show(path)}: there is no folder {show(target.parent)}")
        # A rename would not mind, and root may write everywhere, to /dev/null too.
        if target.exists() and not (target.is_file() and target.stat().st_mode & 0o222):
            raise Failure(
                f"cannot write {show(path)}: it is write-protected, or not a file; name another"
            )
        # Of the name only the end, lest both together are longer than the system takes.
        temporary = target.with_name(f".{os.getpid()}.{secrets.token_hex(4)}.{target.name[-40:]}")
        TEMPORARY.add(temporary)
        try:
            temporary.touch(exist_ok=False)
            yield temporary
            if temporary.stat().st_size:
                os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
            TEMPORARY.discard(temporary)


@contextmanager
def writing(path):
    """Turn what the operating system says in the block into the `Failure` that names `path`."""
    try:
        yield
    except OSError as error:
        raise Failure(f"cannot write {show(path)}: {reason(error)}") from error


def read_npz(path, names=None, *, holds="a result file", remedy):
    """The arrays of an `.npz` file, all or those of some names: a dict.

    holds: what the file should be, and remedy: the way out, for the message of the `Failure` where
    it is missing, broken, pickled or lacks a name.
    """
    check_input(path, remedy=remedy)
    try:
        with np.load(path, allow_pickle=False) as stored:
            # A member that is no array comes as its bytes.
            return {name: np.asarray(stored[name]) for name in names or stored.files}
    except (MemoryError, OSError) as error:
        raise Failure(f"cannot read {show(path)}: {reason(error)}; {remedy}") from error
    except Exception as error:  # a hostile file can make a decoder raise anything
        problem = f"is truncated, holds Python objects, or is not {holds}"
        raise Failure(f"{show(path)} {problem}: {remedy}") from error
