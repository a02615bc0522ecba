"""Every digit as every other: the smallest noise between all pairs of classes.

    python method1_noise_optimization/every_pair.py --model mlp
    python method1_noise_optimization/every_pair.py --model mlp --norm linf

On the left a 10 x 10 grid of adversarial images: the row is the digit that was written, the
column the one that is seen after the smallest noise, the diagonal the originals.  On the right
the mean size of that noise for each pair, over COUNT digits of each kind: which digits lie close
together for the classifier, and which far apart.  Small means in L2 (`minimal`), or with --norm
linf in the largest change of a pixel (the smallest epsilon by many steps).

reads   common/mnist.npz, common/weights/{model}.weights.h5, common/5k_samples.npz
writes  img/noise_every_pair.png, with --norm linf img/noise_every_pair_linf.png; for other models
        than the MLP with the model's name added
"""

import numpy as np

from common import command, data, files, models, plots
from method1_noise_optimization import attack

# What the figure calls the size of the noise, and the digits after the point.
NORMS = {"l2": ("|r|₂", 2), "linf": ("|r|∞", 3)}
STEPS = 500  # of the search for the smallest epsilon


def smallest_noise(model, x, y_target, norm):
    """The smallest noise found in that norm: (noise, sizes (n,), reached (n,))."""
    if norm == "l2":
        noise = attack.find_noise(model, x, y_target, method="minimal", progress=True)
        return noise, attack.sizes(noise), attack.reached(model, x, noise, y_target)
    # Here method 1 looks at method 2, whose norm this is.
    from method2_fgsm.smallest_eps import smallest_eps

    eps, x_adv = smallest_eps(model, x, y_target, steps=STEPS)
    return x_adv - x, eps, np.isfinite(eps)


def by_pair(x, y, y_target, noise, size, reached):
    """One image for each pair of digits, and the mean size of the noise that reached its target.

    Returns images (10, 10, 28, 28), the originals on the diagonal, and means (10, 10), NaN on
    the diagonal and where no image reached its target.
    """
    images, means = np.empty((10, 10, 28, 28)), np.full((10, 10), np.nan)
    for source in range(10):
        images[source, source] = x[y == source][0]
        for target in range(10):
            pair = (y == source) & (y_target == target)
            if source != target:
                images[source, target] = (x[pair] + noise[pair])[0]
            if (pair & reached).any():
                means[source, target] = size[pair & reached].mean()
    return images, means


@plots.our_style()
def draw(images, means, norm, title):
    """The figure: images (10, 10, 28, 28) and means (10, 10), NaN on the diagonal."""
    size, digits = NORMS[norm]
    fig = plots.figure(16, 8.4, title)
    left, right = fig.subfigures(1, 2, width_ratios=(1, 1.05))
    axes = left.subplots(10, 10)
    for source in range(10):
        for seen in range(10):
            ax = axes[source, seen]
            plots.digit(ax, images[source, seen], str(seen) if source == 0 else None)
            if seen == 0:
                ax.set_ylabel(source, rotation=0, labelpad=10, va="center")
            if source == seen:  # the originals, in a frame
                for spine in ax.spines.values():
                    spine.set(visible=True, color=plots.COLOURS[1], linewidth=2.5)
    left.supylabel("digit written", fontsize=12)
    left.suptitle("digit seen (in the frames: the originals)", fontsize=12)

    ax = right.subplots()
    drawn = ax.imshow(means, cmap="viridis", vmin=0)
    middle = np.nanmax(means) / 2
    for source in range(10):
        for seen in range(10):
            if source != seen:
                mean = means[source, seen]
                colour = "white" if mean < middle else "black"
                ax.text(seen, source, f"{mean:.{digits}f}", ha="center", va="center", color=colour)
    ax.set(xticks=range(10), yticks=range(10), xlabel="digit seen", ylabel="digit written")
    ax.grid(False)
    right.colorbar(drawn, ax=ax, shrink=0.8, label=f"mean {size} (pixel units)")
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    models.add_model(parser, "mlp")
    data.add_samples(parser)
    command.add_count(parser, "--count", "digits of each kind", 20)
    parser.add_argument("--norm", choices=NORMS, default="l2", help="in which noise is small")
    command.add_output(parser, "the figure to write (default: see above)")
    args = parser.parse_args(argv)
    name = "noise_every_pair" + ("" if args.norm == "l2" else f"_{args.norm}")
    name += "" if args.model == "mlp" else f"_{args.model}"
    output = plots.check_output(args.output or files.IMG / f"{name}.png", args)
    x, y, _ = data.load_samples(args.samples)
    model = models.load(args.model)

    where = files.show(args.samples)
    kinds = [
        models.correctly_classified([model], x, y, where, source=digit, count=args.count)
        for digit in range(10)
    ]
    chosen = np.concatenate([kind[: args.count] for kind in kinds])
    # Each digit nine times in a row, once for every other digit.
    x, y = np.repeat(x[chosen], 9, axis=0), np.repeat(y[chosen], 9)
    y_target = (y + np.tile(np.arange(1, 10), len(chosen))) % 10
    noise, size, reached = smallest_noise(model, x, y_target, args.norm)
    images, means = by_pair(x, y, y_target, noise, size, reached)
    mean = size[reached].mean() if reached.any() else np.nan

    symbol, digits = NORMS[args.norm]
    search = "minimal" if args.norm == "l2" else f"{STEPS} steps"
    title = (
        f"{models.title(args.model)}, the smallest noise ({search}) for every pair of digits: "
        f"mean {symbol} = {mean:.{digits}f}"
    )
    plots.save(draw(images, means, args.norm, title), output)

    name = "|r|_2" if args.norm == "l2" else "|r|_inf"
    print(f"{models.title(args.model)}: mean {name} over {args.count} digits of each kind")
    print("written   seen as" + " " * 48 + "mean")
    print("       " + "".join(f"{seen:6d}" for seen in range(10)))
    for source in range(10):
        cells = "".join("     -" if np.isnan(m) else f"{m:6.{digits}f}" for m in means[source])
        print(f"{source:7d}{cells}{np.nanmean(means[source]):9.{digits}f}")
    print(f"   mean{''.join(f'{m:6.{digits}f}' for m in np.nanmean(means, axis=0))}")
    print(f"reached the target {reached.mean():.2%} of {len(reached)}")
    return [output]


if __name__ == "__main__":
    command.run(main)
