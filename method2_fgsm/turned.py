"""No noise at all: what is left of a network's accuracy when its images are turned and shifted.

    python method2_fgsm/turned.py
    python method2_fgsm/turned.py --models cnn cnn_robust
    python method2_fgsm/turned.py --model mine.keras --samples mine.npz

After Engstrom et al. (2019), "Exploring the Landscape of Spatial Robustness": the worst of 31 turns
(from -30 to 30 degrees) and of 25 shifts (from -3 to 3 pixels of 28 in both directions, of other
images as large a part), each alone and all 775 together, beside the worst of ten random ones.  They
find that no gradient does better than such a grid.  What holds within epsilon need not hold here: a
proof speaks of its box alone.

The figure shows accuracy against the angle and the shift; of one network (the CNN, or the last) an
image of each class at the smallest turn that changes its answer, and of the first of them the
answers to all turns and shifts.

reads   common/mnist.npz and common/weights/{model}.weights.h5, or a .keras file and its samples
writes  img/turned.png, for one network img/turned_{model}.png
"""

import numpy as np
from tqdm import tqdm

from common import command, data, files, plots
from common.networks import mnist, own_model
from common.run import attack_run
from common.search import checks

DEGREES = np.linspace(-30, 30, 31)
SHIFTS = np.linspace(-3, 3, 5) / data.SIDE  # of the height, and of the width
RANDOM = 10
# Of the smallest turn and shift, in degrees and in parts of the sides.
TURN_STEP, MOST_TURN = 0.1, 45
SHIFT_STEP, MOST_SHIFT = 0.1 / data.SIDE, 3 / data.SIDE


def moved(x, moves):
    """Images turned around their centre, then shifted, bilinearly; what comes in is black.

    x: float32 (n, h, w) or (n, h, w, c) in [0, 1].  moves (n, 3): degrees counterclockwise, the shift
    down in parts of the height, and to the right in parts of the width.  Returns float32 like x.
    """
    import tensorflow as tf

    height, width = x.shape[1:3]
    turn, down, right = np.asarray(moves, np.float64).T
    down, right, turn = down * height, right * width, np.deg2rad(turn)
    cos, sin, none = np.cos(turn), np.sin(turn), np.zeros_like(turn)
    # The pixel (u, v) comes from (cos u' - sin v', sin u' + cos v') with u', v' from the centre.
    u, v = (width - 1) / 2, (height - 1) / 2
    from_u = u - cos * (u + right) + sin * (v + down)
    from_v = v - sin * (u + right) - cos * (v + down)
    images = tf.raw_ops.ImageProjectiveTransformV3(
        images=x.reshape(*x.shape[:3], -1),
        transforms=np.float32([cos, -sin, from_u, sin, cos, from_v, none, none]).T,
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return np.clip(images, 0, 1).reshape(x.shape)


def first_wrong(model, x, y, moves):
    """The place of the first of the moves (k, 3), or of each image's own (n, k, 3), after which an
    image is not classified as y: int (n,), -1 where there is none.  Images that fall leave."""
    first, left, tried = np.full(len(x), -1), np.arange(len(x)), 0
    moves = np.broadcast_to(moves, (len(x), *np.shape(moves)[-2:]))
    while len(left) and tried < moves.shape[1]:
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
    turn will do; and float32 like x, x where none will.
    Raises ValueError as `common/search/checks.py` says.
    """
    sizes = np.arange(round(MOST_TURN / TURN_STEP) + 1) * TURN_STEP
    turns = np.stack([sizes, -sizes], axis=1).ravel()[1:]
    move, x_adv = _smallest(model, x, y, np.stack([turns, 0 * turns, 0 * turns], axis=1))
    return move[:, 0], x_adv


def smallest_shift(model, x, y):
    """The same for the shortest shift, in tenths of a pixel of 28 up to 3 down and to the right.

    Returns (shift, x_adv): (n, 2), down and to the right, in parts of the height and of the width.
    """
    steps = round(MOST_SHIFT / SHIFT_STEP)
    grid = np.arange(-steps, steps + 1) * SHIFT_STEP
    shifts = _moves([0], grid)
    shifts = shifts[np.argsort(np.linalg.norm(shifts, axis=1), kind="stable")]
    move, x_adv = _smallest(model, x, y, shifts)
    return move[:, 1:], x_adv


def _smallest(model, x, y, moves):
    x, y = checks.checked(model, x, y)
    first = first_wrong(model, x, y, moves)
    found, x_adv = first >= 0, x.copy()
    x_adv[found] = moved(x[found], moves[first[found]])
    return np.where(found[:, np.newaxis], moves[first], np.nan), x_adv


def _moves(degrees, shifts):
    """All combinations of turns, and shifts in both directions: (k, 3)."""
    return np.stack(np.meshgrid(degrees, shifts, shifts, indexing="ij"), axis=-1).reshape(-1, 3)


def standing(model, x, y, rng):
    """What is left of a network: the first of the turns and of the shifts, in the order of their
    sizes, after which each image is not y, -1 where it stands; and of all, and of random ones,
    whether it stands.  A dict of (n,)."""
    shift, turn = _moves([0], SHIFTS), _moves(DEGREES, [0])
    found = {
        "turned": first_wrong(model, x, y, turn[np.abs(turn[:, 0]).argsort(kind="stable")]),
        "shifted": first_wrong(model, x, y, shift[_reach(shift).argsort(kind="stable")]),
    }
    left = (found["turned"] < 0) & (found["shifted"] < 0)
    both = _moves(DEGREES, SHIFTS)
    both = both[
        (_reach(both) * data.SIDE + np.abs(both[:, 0])).argsort()[::-1]
    ]  # these fall sooner
    found["both"] = left.copy()
    found["both"][left] = first_wrong(model, x[left], y[left], both) < 0
    drawn = rng.uniform(-1, 1, (len(x), RANDOM, 3)) * [DEGREES[-1], SHIFTS[-1], SHIFTS[-1]]
    return found | {"random": first_wrong(model, x, y, drawn) < 0}


def _reach(moves):
    """How far an image is shifted in the direction in which that is more."""
    return np.abs(moves[:, 1:]).max(axis=1)


@plots.our_style()
def draw(found, shown, title):
    """found: {name: what `standing` gives}.  shown: of one network its name, images (k, ...), their
    labels, turned images, what these are seen as, the degrees, and the answers (degrees, shifts) to
    the first image moved; labels and answers as text."""
    name, images, labels, turned, seen, degrees, answers = shown
    fig = plots.figure(13, 13, title)
    top, middle, bottom = fig.subfigures(3, 1, height_ratios=(1.1, 0.75, 1.7))
    for ax, kind, sizes, label in zip(
        top.subplots(1, 2),
        ("turned", "shifted"),
        (np.sort(np.abs(DEGREES)), np.sort(_reach(_moves([0], SHIFTS))) * data.SIDE),
        ("turned by up to … degrees", f"shifted by up to … of {data.SIDE} pixels"),
        strict=True,
    ):
        for place, (network, first) in enumerate(found.items()):
            fell = np.where(first[kind] < 0, np.inf, sizes[first[kind]])
            left = [100 * (fell > size).mean() for size in np.unique(sizes)]
            colour, line = plots.COLOURS[place], plots.LINE_STYLES[place]
            ax.plot(np.unique(sizes), left, line, marker="o", ms=4, color=colour, label=network)
        ax.set(xlabel=label, ylabel="accuracy (%)", ylim=(-2, 102))
    ax.legend()
    middle.suptitle(f"{name}: the smallest turn that changes the answer", fontsize=12)
    axes = middle.subplots(2, len(images), squeeze=False)
    for column, (before, after) in enumerate(axes.T):
        plots.digit(before, images[column], labels[column])
        plots.digit(after, turned[column])
        after.set_xlabel(f"{seen[column]} | {degrees[column]:.1f}°")
    bottom.suptitle(f"{name}: the answers to the first, turned and shifted", fontsize=12)
    ax = bottom.subplots()
    wrong = answers != labels[0]
    ax.imshow(wrong.T, cmap="Greys", vmax=3, aspect="auto")
    for (column, row), answer in np.ndenumerate(answers):
        weight = "bold" if wrong[column, row] else "normal"
        ax.text(column, row, answer, ha="center", va="center", size=7, weight=weight)
    pixels = [f"{down:+g}, {right:+g}" for _, down, right in _moves([0], SHIFTS * data.SIDE)]
    ax.set_xticks(range(len(DEGREES)), [f"{degree:g}" for degree in DEGREES])
    ax.set_yticks(range(len(pixels)), pixels, fontsize=8)
    ax.set(xlabel="degrees counterclockwise", ylabel="pixels down, to the right")
    ax.grid(False)
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--models", nargs="+", type=mnist.argument, default=mnist.NAMES, help="the networks"
    )
    own_model.add_model(parser, None)
    command.option(parser, "--samples", command.path, None, "images (default: the test digits)")
    command.add_count(parser, "--count", "how many images (of a file: drawn)", 1000)
    command.add_seed(parser, "of the random turns and shifts")
    command.add_output(parser, "the figure to write (default: see above)")
    args = parser.parse_args(argv)
    names = [args.model] if args.model else list(dict.fromkeys(args.models))
    figure = f"turned_{own_model.stem(args.model)}.png" if args.model else "turned.png"
    output = plots.check_output(args.output or files.IMG / figure, args)
    shown = "cnn" if "cnn" in names else names[-1]
    opened = {}
    for name in names:
        args.model = name
        opened[name] = attack_run.opened(args, args.count, full_test_set=args.samples is None)

    found, rows = {}, []
    for name, (network, _, model, x, y, _) in tqdm(opened.items(), disable=None, unit="network"):
        title, clean = mnist.title(name), mnist.classify(model, x) == y
        found[title] = standing(model, x, y, np.random.default_rng(args.seed))
        left = [clean, *(of if of.dtype == bool else of < 0 for of in found[title].values())]
        rows.append((title, *(f"{100 * of.mean():.1f}" for of in left)))
        if name == shown:
            first = np.unique(y[clean], return_index=True)[1][:10]
            few, labels = x[clean][first], y[clean][first]
            degrees, turned = smallest_turn(model, few, labels)
            seen = mnist.classify(model, turned)
            grid = _moves(DEGREES, SHIFTS)
            answers = mnist.classify(model, moved(np.repeat(few[:1], len(grid), axis=0), grid))
            named = np.array([network.label(k) for k in range(network.classes)])
            texts = named[labels], turned, named[seen], degrees
            picture = title, few, *texts, named[answers].reshape(len(DEGREES), -1)
    title = (
        f"Turned and shifted, no noise: {len(x):,} {'images' if args.samples else 'test digits'}"
    )
    plots.save(draw(found, picture, title), output)
    print(f"{title}; accuracy in %")
    print(command.table(("", "as they are", "turned", "shifted", "both", "random, of ten"), rows))
    return [output]


if __name__ == "__main__":
    command.run(main)
