"""Every digit, or class, as every other: the smallest noise between all pairs of classes.

    python method1_noise_optimization/every_pair.py --model mlp
    python method1_noise_optimization/every_pair.py --model mlp --norm linf
    python method1_noise_optimization/every_pair.py --model mine.keras --samples mine.npz

On the left a 10 x 10 grid of adversarial images: the row is the digit that was written, the
column the one that is seen after the smallest noise, the diagonal the originals.  On the right
the mean size of that noise for each pair, over COUNT digits of each kind: which digits lie close
together for the classifier, and which far apart.  Small means in L2 (`minimal`), or with --norm
linf in the largest change of a pixel (the smallest epsilon by many steps).  A network of your own
may have other classes, up to ten, and its samples any size.

reads   common/weights/{model}.weights.h5 and common/5k_samples.npz, or a .keras file with at most
        ten classes and its samples
writes  img/noise_every_pair.png, with --norm linf img/noise_every_pair_linf.png; for other models
        than the MLP with the model's name added
"""

import numpy as np

from common import command, data, files, plots
from common.command import Failure
from common.networks import mnist, own_model
from method1_noise_optimization.nearest import NORMS, nearest

DIGITS = {"l2": 2, "linf": 3}  # after the point
STEPS = 500  # of the search for the smallest epsilon


def by_pair(classes, x, y, y_target, x_adv, size):
    """One image for each pair of classes, and the mean size of the noise that reached its target.

    size: (n,), infinite where it did not.  Returns images (classes, classes, ...), the originals on
    the diagonal, and means (classes, classes), NaN there and where no image reached its target.
    """
    images = np.empty((classes, classes, *x.shape[1:]))
    means = np.full((classes, classes), np.nan)
    for source in range(classes):
        images[source, source] = x[y == source][0]
        for target in range(classes):
            pair = (y == source) & (y_target == target)
            if source != target:
                images[source, target] = x_adv[pair][0]
            found = pair & np.isfinite(size)
            if found.any():
                means[source, target] = size[found].mean()
    return images, means


@plots.our_style()
def draw(images, means, names, norm, title, seen_as, written):
    """The figure: images (k, k, ...) and means (k, k), NaN on the diagonal, of classes `names`.

    seen_as, written: what its columns and rows are called.
    """
    size, digits = NORMS[norm], DIGITS[norm]
    classes = range(len(names))
    fig = plots.figure(16, 8.4, title)
    left, right = fig.subfigures(1, 2, width_ratios=(1, 1.05))
    axes = left.subplots(len(names), len(names))
    for source in classes:
        for seen in classes:
            ax = axes[source, seen]
            plots.digit(ax, images[source, seen], names[seen] if source == 0 else None)
            if seen == 0:
                ax.set_ylabel(names[source], rotation=0, labelpad=10, va="center", ha="right")
            if source == seen:  # the originals, in a frame
                for spine in ax.spines.values():
                    spine.set(visible=True, color=plots.COLOURS[1], linewidth=2.5)
    left.supylabel(written, fontsize=12)
    left.suptitle(f"{seen_as} (in the frames: the originals)", fontsize=12)

    ax = right.subplots()
    drawn = ax.imshow(means, cmap="viridis", vmin=0)
    middle = np.nanmax(means) / 2
    for source in classes:
        for seen in classes:
            if source != seen:
                mean = means[source, seen]
                colour = "white" if mean < middle else "black"
                ax.text(seen, source, f"{mean:.{digits}f}", ha="center", va="center", color=colour)
    ax.set(xlabel=seen_as, ylabel=written)
    ax.set_xticks(classes, names)
    ax.set_yticks(classes, names)
    ax.grid(False)
    right.colorbar(drawn, ax=ax, shrink=0.8, label=f"mean {size} (pixel units)")
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    own_model.add_model(parser, "mlp")
    data.add_samples(parser)
    command.add_count(parser, "--count", "digits of each kind", 20)
    parser.add_argument("--norm", choices=NORMS, default="l2", help="in which noise is small")
    command.add_output(parser, "the figure to write (default: see above)")
    args = parser.parse_args(argv)
    name = "noise_every_pair" + ("" if args.norm == "l2" else f"_{args.norm}")
    name += "" if args.model == "mlp" else f"_{own_model.stem(args.model)}"
    output = plots.check_output(args.output or files.IMG / f"{name}.png", args)
    network, model, judge, x, y, _ = own_model.opened(args)
    k = network.classes
    if k > 10:
        raise Failure(f"{network.model} has {k} classes, and every pair is drawn for at most ten")

    where = files.show(args.samples)
    kinds = [
        mnist.correctly_classified([judge], x, y, where, source=digit, count=args.count)
        for digit in range(k)
    ]
    chosen = np.concatenate([kind[: args.count] for kind in kinds])
    # Each digit nine times in a row, once for every other digit.
    x, y = np.repeat(x[chosen], k - 1, axis=0), np.repeat(y[chosen], k - 1)
    y_target = (y + np.tile(np.arange(1, k), len(chosen))) % k
    how = {"targeted": True, "steps": STEPS, "judge": judge, "progress": True}
    x_adv, size = nearest(model, x, y_target, args.norm, **how)
    images, means = by_pair(k, x, y, y_target, x_adv, size)
    reached = np.isfinite(size)
    mean = size[reached].mean() if reached.any() else np.nan

    symbol, digits = NORMS[args.norm], DIGITS[args.norm]
    search = "minimal" if args.norm == "l2" else f"{STEPS} steps"
    axes = ("class seen", "true class") if network.pixels else ("digit seen", "digit written")
    title = (
        f"{mnist.title(args.model)}, the smallest noise ({search}) for every pair of "
        f"{'classes' if network.pixels else 'digits'}: mean {symbol} = {mean:.{digits}f}"
    )
    names = [network.label(place) for place in range(k)]
    plots.save(draw(images, means, names, args.norm, title, *axes), output)

    name = "|r|_2" if args.norm == "l2" else "|r|_inf"
    print(f"{mnist.title(args.model)}: mean {name} over {args.count} images of each kind")
    print(f"written   seen as{' ' * (6 * k - 12)}mean")
    print("       " + "".join(f"{seen:>6.5}" for seen in names))
    for source, written in enumerate(names):
        cells = "".join("     -" if np.isnan(m) else f"{m:6.{digits}f}" for m in means[source])
        print(f"{written:>7.6}{cells}{np.nanmean(means[source]):9.{digits}f}")
    print(f"   mean{''.join(f'{m:6.{digits}f}' for m in np.nanmean(means, axis=0))}")
    print(f"reached the target {reached.mean():.2%} of {len(reached)}")
    return [output]


if __name__ == "__main__":
    command.run(main)
