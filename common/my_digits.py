"""Make digits like MNIST's of your own handwriting, for every attack to take.

    python common/my_digits.py 2.png 7_second.jpg 5.jpg
    python common/my_digits.py IMG_4711.jpg --label 7 --output seven.npz
    python method2_fgsm/mnist_fast_gradient.py --samples common/my_samples.npz

Photographs or drawings, one digit a picture: any pen, paper and colour, dark on light or light on
dark.  The label is the digit with which the file's name begins, or that of --label.  The digit is
the largest piece of ink with what lies near it: the figure shows what was cut out.  A picture
without one is left out with a line that says why.

reads   the pictures, common/weights/{softmax,mlp,cnn}.weights.h5
writes  common/my_samples.npz: images float32 (n, 28, 28) in [0, 1], labels int64 (n,)
        img/my_digits.png: each picture, its 28 x 28 pixels, each model's answer
"""

import sys

import numpy as np
from PIL import Image

from common import command, files, plots
from common.command import Failure
from common.networks import mnist

SAMPLES, OURS = files.COMMON / "my_samples.npz", files.COMMON / "digits"
DRAWN = 20  # digits in the figure at most
TITLE = "each picture, its 28 × 28 pixels, each model's answer (and how sure it is)"


def read(paths, label):
    """The digits of picture files: (names, pictures, images, labels), four lists.

    label: that of all of them, or None for what their names say.  What is no digit is left out,
    with a line on stderr.  Raises `Failure` where none is left.
    """
    from common import handwriting

    found, reasons = [], []
    for path in paths:
        try:
            y = handwriting.label_of(path) if label is None else label
            picture = handwriting.read(path)
            found.append((path.name, picture, handwriting.like_mnist(picture), y))
        except handwriting.Unreadable as reason:
            reasons.append(f"{files.show(path)}: {reason}")
    if not found:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise Failure(f"no digit in {reasons[0]}{more}")
    for reason in reasons:
        print(f"left out: {command.one_line(reason)}", file=sys.stderr)
    return tuple(zip(*found, strict=True))


@plots.our_style()
def draw(pictures, images, probabilities):
    """The figure: rows of up to five digits, the picture above and the 28 x 28 pixels below.

    probabilities: those of each model by its name, (n, 10).
    """
    columns, bands = plots.grid(len(images), 5, DRAWN // 5)
    fig = plots.figure(2.5 * columns + 0.4, 5.6 * bands + 0.6, TITLE)
    axes = fig.subplots(2 * bands, columns, squeeze=False)
    for i, (before, after) in enumerate(plots.stacked_pairs(axes, len(images))):
        small = Image.fromarray(pictures[i])
        small.thumbnail((150, 150), Image.Resampling.BOX)
        plots.photo(before, np.asarray(small) / 255)
        lines = [f"{mnist.title(name)}: {said(p[i])}" for name, p in probabilities.items()]
        plots.digit(after, images[i], "\n".join(lines))
    return fig


def said(probabilities):
    """The likeliest digit and how likely it is, as text."""
    return f"{probabilities.argmax()} ({probabilities.max():.0%})"


def main(argv=None):
    parser = command.Parser(__doc__)
    pictures = "pictures of one digit each (default: the ten in common/digits)"
    digit, path = command.digit, command.path
    command.option(parser, "pictures", path, None, pictures, nargs="*", metavar="PICTURE")
    command.option(parser, "--label", digit, None, "the digit on them (default: the names say it)")
    command.add_output(parser, "the .npz file to write", SAMPLES)
    command.option(parser, "--figure", path, None, "default: img/my_digits.png")
    args = parser.parse_args(argv)
    if args.label is not None and not args.pictures:
        parser.error("--label needs a PICTURE")
    figure = args.figure or files.IMG / "my_digits.png"
    files.check_output(args.output, args, map(mnist.weights_path, mnist.NAMES))
    plots.check_output(figure, args)

    paths = args.pictures or sorted(OURS.glob("*.jpg"))
    names, pictures, images, labels = read(paths, args.label)
    images, labels = np.stack(images), np.array(labels, np.int64)
    probabilities = {
        name: mnist.softmax(mnist.predict(mnist.load(name), images)) for name in mnist.NAMES
    }
    plots.save(draw(pictures, images, probabilities), figure)
    # Through an open file, because NumPy would add .npz to another suffix.
    with files.replacing(args.output) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, images=images, labels=labels)

    rows = []
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        read_by_none = all(p[i].argmax() != label for p in probabilities.values())
        rows.append((label, *(said(p[i]) for p in probabilities.values()), command.one_line(name)))
        rows[-1] += ("no model reads its label: look at the figure",) * read_by_none
    right = [(p.argmax(axis=1) == labels).sum() for p in probabilities.values()]
    rows.append(("right", *(f"{count} of {len(labels)}" for count in right)))
    print(command.table(("label", *map(mnist.title, mnist.NAMES), "picture"), rows))
    if len(images) < len(paths):
        print(f"left out: {len(paths) - len(images)}")
    return [args.output, figure]


if __name__ == "__main__":
    command.run(main)
