"""Turn every digit, or class, into every other with the smallest noise.

    python method1_noise_optimization/every_pair.py --model mlp
    python method1_noise_optimization/every_pair.py --model mine.keras --samples mine.npz

On the left a grid of adversarial images: the row is the digit that was written, the column the one
that is seen after the smallest noise, the diagonal the originals.  On the right the mean size of
that noise, over COUNT digits of each kind: |r|_2, or with --norm linf the largest change of a
pixel.

reads   common/weights/{model}.weights.h5 and common/5k_samples.npz, or a .keras file with at most
        ten classes and its samples
writes  img/noise_every_pair.png, with --norm linf img/noise_every_pair_linf.png; for other models
        than the MLP with the model's name added
"""

import numpy as np

from common import command, data, files, plots
from common.command import Failure
from common.networks import mnist, own_model
from method1_noise_optimization.nearest import nearest

SIZES = {"l2": ("|r|₂", 2), "linf": ("ε", 3)}  # name, and digits after the point
STEPS = 500  # of the search for the smallest epsilon


@plots.our_style()
def draw(images, means, names, norm, title, seen_as, written):
    """The figure: images (k, k, ...) and means (k, k), NaN on the diagonal, of classes `names`.

    seen_as, written: what its columns and rows are called.
    """
    classes, (symbol, digits) = range(len(names)), SIZES[norm]
    fig = plots.figure(16, 8.4, title)
    left, right = fig.subfigures(1, 2, width_ratios=(1, 1.05))
    axes = left.subplots(len(names), len(names))
    ax = right.subplots()
    drawn, middle = ax.imshow(means, cmap="viridis", vmin=0), np.nanmax(means) / 2
    for source, seen in np.ndindex(means.shape):
        plots.digit(axes[source, seen], images[source, seen], None if source else names[seen])
        if source == seen:  # the originals, in a frame
            for spine in axes[source, seen].spines.values():
                spine.set(visible=True, color=plots.COLOURS[1], linewidth=2.5)
        else:
            mean = means[source, seen]
            colour = "white" if mean < middle else "black"
            text = f"{mean:.{digits}f}"
            ax.text(seen, source, text, ha="center", va="center", color=colour)
    for name, first in zip(names, axes[:, 0], strict=True):
        first.set_ylabel(name, rotation=0, labelpad=10, va="center", ha="right")
    left.supylabel(written, fontsize=12)
    left.suptitle(f"{seen_as} (in the frames: the originals)", fontsize=12)
    ax.set(xlabel=seen_as, ylabel=written)
    ax.set_xticks(classes, names)
    ax.set_yticks(classes, names)
    ax.grid(False)
    right.colorbar(drawn, ax=ax, shrink=0.8, label=f"mean {symbol} (pixel units)")
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    own_model.add_model(parser, "mlp")
    data.add_samples(parser)
    command.add_count(parser, "--count", "digits of each kind", 20)
    norms = {"choices": ("l2", "linf"), "default": "l2", "help": "in which noise is small"}
    parser.add_argument("--norm", **norms)
    command.add_output(parser, "the figure to write (default: see above)")
    args = parser.parse_args(argv)
    name = "noise_every_pair" + ("" if args.norm == "l2" else f"_{args.norm}")
    name += "" if args.model == "mlp" else f"_{own_model.stem(args.model)}"
    output = plots.check_output(args.output or files.IMG / f"{name}.png", args)
    network, model, judge, x, y, _ = own_model.opened(args)
    k = network.classes
    if k > 10:
        raise Failure(f"{network.model} has {k} classes, and every pair is drawn for at most ten")

    where, count = files.show(args.samples), args.count
    kinds = [
        mnist.correctly_classified([judge], x, y, where, source=kind, count=count)[:count]
        for kind in range(k)
    ]
    # Each digit nine times in a row, once for every other digit.
    chosen = np.concatenate(kinds)
    repeated, y = np.repeat(x[chosen], k - 1, axis=0), np.repeat(y[chosen], k - 1)
    y_target = (y + np.tile(np.arange(1, k), len(chosen))) % k
    how = {"targeted": True, "steps": STEPS, "judge": judge, "progress": True}
    x_adv, size = nearest(model, repeated, y_target, args.norm, **how)

    images, means = np.empty((k, k, *x.shape[1:])), np.full((k, k), np.nan)
    reached = np.isfinite(size)
    for source, seen in np.ndindex(k, k):
        pair = (y == source) & (y_target == seen)
        images[source, seen] = x[kinds[source][0]] if source == seen else x_adv[pair][0]
        if (pair & reached).any():
            means[source, seen] = size[pair & reached].mean()
    mean = size[reached].mean() if reached.any() else np.nan

    model, (symbol, digits) = mnist.title(args.model), SIZES[args.norm]
    search, name = "smallest noise (minimal)", "|r|_2"
    if args.norm == "linf":
        search, name = f"smallest ε ({STEPS} steps)", "smallest eps"
    pairs, *axes = "digits", "digit seen", "digit written"
    if network.pixels:
        pairs, *axes = "classes", "class seen", "true class"
    title = f"{model}, {search} for every pair of {pairs}: mean {symbol} = {mean:.{digits}f}"
    names = [network.label(place) for place in range(k)]
    plots.save(draw(images, means, names, args.norm, title, *axes), output)

    print(f"{model}: mean {name} over {count} images of each kind")
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
