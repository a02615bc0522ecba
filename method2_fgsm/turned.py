"""No noise at all: what is left of a network's accuracy when its images are turned and shifted.

    python method2_fgsm/turned.py
    python method2_fgsm/turned.py --models cnn cnn_augmented --output two.png
    python method2_fgsm/turned.py --model mine.keras --samples mine.npz

After Engstrom et al. (2019), "Exploring the Landscape of Spatial Robustness": the
worst of 31 turns (up to 30 degrees) and of 25 shifts (up to 3 pixels of 28, of
other images as large a part), each alone and all 775 together, beside the worst
of ten random ones.  They find that gradients do no better than such a grid.

reads   common/mnist.npz, common/weights/{model}.weights.h5; or a .keras file, --samples
writes  img/turned.png, for --model img/turned_{model}.png
"""

import numpy as np
from tqdm import tqdm

from common import command, data, files, plots
from common.networks import mnist, own_model
from common.search import checks


def moved(x, moves):
    """Images turned around their centre, then shifted, bilinearly; what comes in is black.

    x: float32 (n, h, w) or (n, h, w, c) in [0, 1].  moves (n, 3): degrees counterclockwise, shift
    down in parts of the height, and to the right in parts of the width.  Returns float32 like x.
    """
    import tensorflow as tf

    height, width = x.shape[1:3]
    u, v = (width - 1) / 2, (height - 1) / 2
    turn, down, right = (np.asarray(moves) * [np.pi / 180, height, width]).T
    cos, sin, none = np.cos(turn), np.sin(turn), np.zeros_like(turn)
    # What is at (a, b) from the shifted centre was at (cos a - sin b, sin a + cos b) from the old.
    from_u = u - cos * (u + right) + sin * (v + down)
    from_v = v - sin * (u + right) - cos * (v + down)
    images = tf.raw_ops.ImageProjectiveTransformV3(
        images=x.reshape(*x.shape[:3], *(x.shape[3:] or [1])),
        transforms=np.float32([cos, -sin, from_u, sin, cos, from_v, none, none]).T,
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return np.clip(images, 0, 1).reshape(x.shape)


def combined(degrees, shifts):
    """All combinations of turns, and of shifts in both directions: (k, 3), as `moved` takes them,
    the smaller first, where a degree counts as much as a tenth of a pixel of 28."""
    moves = np.stack(np.meshgrid(degrees, shifts, shifts, indexing="ij"), axis=-1).reshape(-1, 3)
    return moves[np.argsort(size(moves), kind="stable")]


def size(moves):
    return np.linalg.norm(moves * [0.1, data.SIDE, data.SIDE], axis=1).round(6)


DEGREES, SHIFTS, RANDOM = np.linspace(-30, 30, 31), np.linspace(-3, 3, 5) / data.SIDE, 10
TURNED, SHIFTED = combined(DEGREES, [0]), combined([0], SHIFTS)
FINE_TURNS = combined(np.arange(-450, 451) / 10, [0])


def first_wrong(model, x, y, moves):
    """The place of the first of the moves (k, 3), or of each image's own (n, k, 3), after which an
    image is not classified as y: int (n,), k where it stands.  Images that fall leave."""
    moves = np.broadcast_to(moves, (len(x), *np.shape(moves)[-2:]))
    first, left, tried = np.full(len(x), moves.shape[1]), np.arange(len(x)), 0
    while len(left) and tried < moves.shape[1]:
        # The fewer images are left, the more moves of each fit into a batch.
        ahead = moves[left, tried : tried + max(1, min(1000, mnist.at_a_time(x)) // len(left))]
        images = np.repeat(x[left], ahead.shape[1], axis=0)
        seen = mnist.classify(model, moved(images, ahead.reshape(-1, 3)))
        wrong = seen.reshape(ahead.shape[:2]) != y[left, np.newaxis]
        fallen = wrong.any(axis=1)
        first[left[fallen]] = tried + wrong[fallen].argmax(axis=1)
        left, tried = left[~fallen], tried + ahead.shape[1]
    return first


def smallest_turn(model, x, y):
    """The smallest turn, in tenths of a degree up to 45, after which each image is not y.

    x: float32 (n, h, w) or (n, h, w, c) in [0, 1].  y: integers (n,).
    Returns (degrees, x_adv): (n,), counterclockwise, 0 where it is not y as it is, NaN where no
    turn will do; and float32 like x, x itself where none will.
    Raises ValueError as `common/search/checks.py` says.
    """
    move, x_adv = _smallest(model, *checks.checked(model, x, y), FINE_TURNS)
    return move[:, 0], x_adv


def smallest_shift(model, x, y):
    """The same for the shortest shift, in tenths of a pixel of 28, up to 3 in both directions.

    Returns (shift, x_adv): (n, 2), down and to the right, in parts of the height and the width.
    """
    fine = combined([0], np.arange(-30, 31) / 10 / data.SIDE)
    move, x_adv = _smallest(model, *checks.checked(model, x, y), fine)
    return move[:, 1:], x_adv


def _smallest(model, x, y, moves):
    first = first_wrong(model, x, y, moves)
    found, x_adv = first < len(moves), x.copy()
    x_adv[found] = moved(x[found], moves[first[found]])
    return np.append(moves, np.full((1, 3), np.nan), axis=0)[first], x_adv


@plots.our_style()
def draw(fallen, name, network, model, x, y, title):
    """fallen: for each name the places of `first_wrong` among TURNED and SHIFTED.  The rest: one
    network, and an image of each class (k, ...), (k,)."""
    fig = plots.figure(13, 13, title)
    top, middle, bottom = fig.subfigures(3, 1, height_ratios=(1.1, 0.75, 1.7))
    kinds = (TURNED, 10, "turned by … degrees"), (SHIFTED, 1, "shifted by … pixels of 28")
    axes = top.subplots(1, 2)
    for kind, (moves, unit, label) in enumerate(kinds):
        for place, (each, first) in enumerate(fallen.items()):
            sizes, fell = size(moves), np.append(size(moves), np.inf)[first[kind]]
            left = [100 * (fell > s).mean() for s in sizes]
            colour, line = plots.COLOURS[place], plots.LINE_STYLES[place]
            axes[kind].plot(unit * sizes, left, line, marker=".", color=colour, label=each)
        axes[kind].set(xlabel=label.replace("…", "up to …"), ylabel="accuracy (%)", ylim=(-2, 102))
    axes[0].legend()

    middle.suptitle(f"{name}: the smallest turn that changes the answer", fontsize=12)
    # The network itself, which may give probabilities: a turn asks for no more than the answer.
    move, turned = _smallest(model, x, y, FINE_TURNS)
    degrees = move[:, 0]
    seen, axes = mnist.classify(model, turned), middle.subplots(2, len(x), squeeze=False)
    for i, (before, after) in enumerate(axes.T):
        plots.digit(before, x[i], network.label(y[i]))
        plots.digit(after, turned[i])
        angle = f" | {degrees[i]:.1f}°" if np.isfinite(degrees[i]) else " up to 45°"
        after.set_xlabel(network.label(seen[i]) + angle)

    worst = np.nan_to_num(np.abs(degrees), nan=np.inf).argmin()
    text = f"this {network.label(y[worst])}, turned and shifted: what is seen (wrong: grey)"
    bottom.suptitle(f"{name}: {text}", fontsize=12)
    turns, *shifts = np.meshgrid(DEGREES, SHIFTS, SHIFTS, indexing="ij")
    moves = np.stack([turns, *shifts], axis=-1).reshape(-1, 3)
    answers = mnist.classify(model, moved(np.repeat(x[[worst]], len(moves), axis=0), moves))
    answers, ax = answers.reshape(len(DEGREES), -1).T, bottom.subplots()
    ax.imshow(answers != y[worst], cmap="Greys", vmin=0, vmax=3, aspect="auto")
    for (row, column), answer in np.ndenumerate(answers):
        ax.text(column, row, network.label(answer), ha="center", va="center", size=7)
    rows = [f"{down:g}, {right:g}" for _, down, right in data.SIDE * moves[: len(answers)]]
    ax.set_xticks(range(len(DEGREES)), [f"{degree:g}" for degree in DEGREES])
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set(xlabel="degrees counterclockwise", ylabel="pixels of 28 down, to the right")
    ax.grid(False)
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    models = "the networks; digits are shown of the CNN, or else of the last"
    command.option(parser, "--models", mnist.argument, mnist.NAMES, models, nargs="+")
    own_model.add_model(parser, None)
    command.option(parser, "--samples", command.path, None, "images (default: the test digits)")
    command.add_count(parser, "--count", "how many images (of a file: drawn)", 1000)
    command.add_seed(parser, "of the random turns and shifts")
    command.add_output(parser, "the figure to write (default: see above)")
    args = parser.parse_args(argv)
    names = [args.model] if args.model else list(dict.fromkeys(args.models))
    figure = f"turned_{own_model.stem(args.model)}.png" if args.model else "turned.png"
    output = plots.check_output(args.output or files.IMG / figure, args)
    opened = {}
    for name in names:
        args.model = name
        opened[name] = own_model.opened(args, args.count, full_test_set=args.samples is None)

    # The largest first: what falls leaves sooner.
    both, limits = combined(DEGREES, SHIFTS)[::-1], [DEGREES[-1], SHIFTS[-1], SHIFTS[-1]]
    fallen, rows = {}, []
    for name, (_, _, model, x, y, _) in tqdm(opened.items(), disable=None, unit="network"):
        drawn = np.random.default_rng(args.seed).uniform(-1, 1, (len(x), RANDOM, 3)) * limits
        kinds = np.zeros((1, 3)), TURNED, SHIFTED, both, drawn
        first = [first_wrong(model, x, y, moves) for moves in kinds]
        stands = [f == np.shape(moves)[-2] for f, moves in zip(first, kinds, strict=True)]
        rows.append((mnist.title(name), *(f"{right.mean():.1%}" for right in stands)))
        fallen[mnist.title(name)] = first[1:3]
    name = "cnn" if "cnn" in names else names[-1]
    network, _, model, x, y, _ = opened[name]
    right = np.flatnonzero(mnist.classify(model, x) == y)
    few = right[np.unique(y[right], return_index=True)[1][:10]]
    images = "images" if args.samples else "test digits"
    title = f"Turned and shifted, no noise: {len(x):,} {images}"
    plots.save(draw(fallen, mnist.title(name), network, model, x[few], y[few], title), output)
    head = ("accuracy", "as they are", "turned", "shifted", "both", "ten random")
    print(title, command.table(head, rows), sep="\n")
    return [output]


if __name__ == "__main__":
    command.run(main)
