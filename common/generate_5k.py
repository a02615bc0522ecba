"""Draw 5,000 distinct random test digits, on which the attack scripts work.

    python common/generate_5k.py

reads   common/mnist.npz
writes  common/5k_samples.npz: images float32 (5000, 28, 28) in [0, 1], labels int64 (5000,),
        indices int64 (5000,), the places in the test set
"""

import numpy as np

from common import command, data, files


def main(argv=None):
    parser = command.Parser(__doc__)
    command.add_count(parser, "--count", "how many digits", 5000)
    command.add_seed(parser, "which digits")
    command.add_output(parser, "the .npz file to write", data.SAMPLES)
    args = parser.parse_args(argv)
    files.check_output(args.output, args, [data.PATH])

    images, labels, indices = data.draw_samples(args.count, args.seed)
    # Through an open file, because NumPy would add .npz to another suffix.
    with files.replacing(args.output) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, images=images, labels=labels, indices=indices)
    print(command.table(("digit", *range(10)), [("count", *np.bincount(labels, minlength=10))]))
    return [args.output]


if __name__ == "__main__":
    command.run(main)
