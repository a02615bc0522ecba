"""Where files live, and how they are written so that nothing is ever half there."""

import hashlib
import itertools
import math
import os
import re
import secrets
import stat
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from common.command import ROOT, TEMPORARY, Failure, one_line, show

COMMON = ROOT / "common"
WEIGHTS = COMMON / "weights"
IMG = ROOT / "img"

# Of an .npz that is not ours, unpacked: a small file may hold more than memory does.
MAX_BYTES = 2 * 1024**3


def from_root(path):
    """`path` as results record it: from the repository root where it lies inside it."""
    absolute = Path(os.path.abspath(path))
    return absolute.relative_to(ROOT).as_posix() if absolute.is_relative_to(ROOT) else str(path)


def plain(name):
    """The name of a class as a part of a file's name: "T-shirt/top" becomes T_shirt_top."""
    return re.sub(r"\W+", "_", name)


def reason(error):
    """What went wrong, in the operating system's words where it has any."""
    return one_line(getattr(error, "strerror", None) or error)


def check_input(path, *, remedy):
    """Raise `Failure`, with `remedy` as the way out, unless `path` is a file.

    Neither is a folder, nor a pipe or a device, from which reading might never end.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Failure(f"{show(path)} not found: {remedy}") from error
    except OSError as error:
        raise Failure(f"cannot read {show(path)}: {reason(error)}; {remedy}") from error
    if not stat.S_ISREG(mode):
        raise Failure(f"cannot read {show(path)}: it is not a file; {remedy}")


def check_output(path, args=None, inputs=()):
    """Return `path` if a file can be written there; raise `Failure` before any work is done.

    args: the script's arguments.  No path among them, nor among `inputs`, may be the same file by
    whatever name: it would be lost.

    The project's own output folders (img, common/weights) are made when they are missing; any
    other folder has to exist, since a mistyped name should not become a new folder.
    """
    values = () if args is None else vars(args).values()
    named = (value if isinstance(value, list) else [value] for value in values)
    for other in itertools.chain(*named, inputs):
        if isinstance(other, Path) and other is not path and _same_file(path, other):
            raise Failure(f"cannot write {show(path)}: this run has it for something else too")
    path = Path(path)
    folder = path.parent
    with writing(path):
        if folder in (IMG, WEIGHTS):
            folder.mkdir(exist_ok=True)
        if not folder.is_dir():
            problem = "is not a folder" if folder.exists() else "does not exist"
            raise Failure(f"cannot write {show(path)}: the folder {show(folder)} {problem}")
        # Not even root should have its /dev/null replaced by a picture.
        if path.exists() and not path.is_file():
            raise Failure(f"cannot write {show(path)}: it is not a file; name one")
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
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise Failure(f"cannot read {show(path)}: {reason(error)}") from error
    return digest.hexdigest()


@contextmanager
def replacing(path):
    """Yield a temporary name beside `path`; on success the file there takes `path`'s place.

    When the block raises, or the process dies, what stood at `path` before is untouched.  A
    block that writes nothing changes nothing.  The temporary name keeps the suffix, from which
    Keras and Matplotlib choose the format.  Where `path` is a link, what it leads to is replaced.
    """
    with writing(path):
        target = Path(os.path.realpath(path))
        # A rename would not mind, and root may write everywhere.
        if target.is_file() and not target.stat().st_mode & 0o222:
            raise Failure(f"cannot write {show(path)}: it is write-protected; name another file")
        # Of the name only the end, since together they may not be longer than the system takes.
        temporary = target.with_name(f".{os.getpid()}.{secrets.token_hex(4)}.{target.name[-40:]}")
        TEMPORARY.add(temporary)
        try:
            temporary.touch(exist_ok=False)
            yield temporary
            if temporary.stat().st_size:
                os.replace(temporary, target)
        finally:
            # The rename took it away, or nothing was written, or the block failed.
            temporary.unlink(missing_ok=True)
            TEMPORARY.discard(temporary)


@contextmanager
def writing(path):
    """Turn what the operating system says in the block into the `Failure` that names `path`."""
    try:
        yield
    except OSError as error:
        raise Failure(f"cannot write {show(path)}: {reason(error)}") from error


def read_npz(path, names=None, *, ours=False, part=None, holds="a result file", remedy):
    """The arrays of an `.npz` file: a dict of names and NumPy arrays.

    names: those to read, all of them if None.  ours: whether it may be of any size.  part(name, n):
    of a file that is too large, which of the n rows of an array to read, None for all of them.
    holds: what the file should be, for the message.  remedy: the way out.  Raises `Failure` when
    the file is missing, not a file, truncated, pickled, too large, no `.npz`, or lacks one of the
    names.
    """
    check_input(path, remedy=remedy)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            large = size > MAX_BYTES and not ours
            if large and part is not None:
                names = [member.removesuffix(".npy") for member in archive.namelist()]
                return {name: _rows(archive, name, part) for name in names}
        if large:
            raise Failure(
                f"{show(path)} unpacks to {size:,} bytes, over {MAX_BYTES:,}: ask for fewer images "
                "with --limit (--count), or save fewer"
            )
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in (stored.files if names is None else names)}
    except Failure:
        raise
    except (MemoryError, OSError) as error:
        raise Failure(f"cannot read {show(path)}: {reason(error)}; {remedy}") from error
    except Exception as error:  # a hostile file can make a decoder raise anything
        pickled = "allow_pickle" in str(error)
        problem = "holds Python objects" if pickled else f"is truncated or not {holds}"
        raise Failure(f"{show(path)} {problem}: {remedy}") from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise Failure(f"{show(path)} is not {holds}: it holds something that is no array; {remedy}")
    return arrays


def _rows(archive, name, part):
    """The rows of an array in an open `.npz` that `part` asks for: see `read_npz`."""
    with archive.open(f"{name}.npy") as member:
        major, _ = np.lib.format.read_magic(member)
        header = getattr(np.lib.format, f"read_array_header_{major}_0")
        (count, *shape), by_column, dtype = header(member)
        rows, size = part(name, count), dtype.itemsize * math.prod(shape)
        rows = range(count) if rows is None else rows
        if len(rows) * size > MAX_BYTES:
            raise Failure(f"{len(rows):,} of {name} are over {MAX_BYTES:,} bytes: ask for fewer")
        if by_column or dtype.hasobject:
            raise ValueError("its rows do not lie one after the other")
        start, content = member.tell(), bytearray()
        for row in rows:
            member.seek(start + int(row) * size)
            content += member.read(size)
    return np.frombuffer(content, dtype).reshape(-1, *shape)
