"""Reading `.npz` files, which anyone may have written: the one place where it is done.

Nothing in such a file is run, nothing larger than `MAX_BYTES` is unpacked, and whatever a broken
or hostile file makes zipfile, zlib or NumPy raise comes out as one `Failure`.
"""

import zipfile

import numpy as np

from common import files
from common.command import Failure

# Unpacked: four times what an attack on all 70,000 digits leaves.
MAX_BYTES = 2 * 1024**3


def read(path, names=None, *, holds="a result file", remedy):
    """The arrays of an `.npz` file: a dict of names and NumPy arrays.

    names: those to read, all of them if None.  holds: what the file should be, for the message.
    remedy: the way out.  Raises `Failure` when the file is missing, no regular file, truncated,
    pickled, too large, no `.npz`, or lacks one of the names.
    """
    shown = files.show(path)
    files.check_input(path, remedy=remedy)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise Failure(
                f"{shown} unpacks to {size:,} bytes, more than {MAX_BYTES:,} and than any file "
                f"of this collection: {remedy}"
            )
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in (stored.files if names is None else names)}
    except Failure:
        raise
    except OSError as error:
        raise Failure(f"cannot read {shown}: {files.reason(error)}; {remedy}") from error
    except Exception as error:  # a hostile file can make a decoder raise anything
        raise Failure(f"{shown} is truncated or not {holds}: {remedy}") from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise Failure(f"{shown} is not {holds}: it holds something that is no array; {remedy}")
    return arrays
