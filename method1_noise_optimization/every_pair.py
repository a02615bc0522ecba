"""Every digit as every other: the smallest noise between all pairs of classes.

    python method1_noise_optimization/every_pair.py --model mlp

On the left a 10 x 10 grid of adversarial images: the row is the digit that was written, the
column the one that is seen after the smallest L2 noise (`minimal`), the diagonal the originals.
On the right the mean size of that noise for each pair, over COUNT digits of each kind: which
digits lie close together for the classifier, and which far apart.

reads   common/mnist.npz, common/weights/{model}.weights.h5, common/5k_samples.npz
writes  img/noise_every_pair.png, for other models than the MLP img/noise_every_pair_{model}.png
"""

from pathlib import Path

import numpy as np

from common import command, data, files, models, plots
from method1_noise_optimization.attack import sizes


def draw(images, means, title):
    """The figure: images (10, 10, 28, 28) and means (10, 10), NaN on the diagonal."""
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
                ax.text(seen, source, f"{mean:.2f}", ha="center", va="center", color=colour)
    ax.set(xticks=range(10), yticks=range(10), xlabel="digit seen", ylabel="digit written")
    ax.grid(False)
    right.colorbar(drawn, ax=ax, shrink=0.8, label="mean |r|₂ (pixel units)")
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--model", type=models.argument, default="mlp", help="which classifier")
    parser.add_argument(
        "--samples", type=Path, default=data.SAMPLES, help="the digits, from generate_5k.py"
    )
    parser.add_argument(
        "--count", type=command.positive_int, default=20, help="digits of each kind"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="the figure to write (default: img/noise_every_pair.png, for other models than the "
        "MLP with the model's name added)",
    )
    args = parser.parse_args(argv)
    other = "" if args.model == "mlp" else f"_{args.model}"
    output = files.check_output(args.output or files.IMG / f"noise_every_pair{other}.png")
    x, y, _ = data.load_samples(args.samples)
    model = models.load(args.model)

    from method1_noise_optimization import attack

    right = models.classify(model, x) == y
    kinds = [np.flatnonzero(right & (y == digit))[: args.count] for digit in range(10)]
    for digit, kind in enumerate(kinds):
        if len(kind) < args.count:
            raise command.Failure(
                f"{files.show(args.samples)} has {len(kind)} correctly classified {digit}s: "
                + (f"choose --count {len(kind)} or " if len(kind) else "draw ")
                + "a larger sample with `python common/generate_5k.py`"
            )
    chosen = np.repeat(np.concatenate(kinds), 9)
    y_target = np.array([seen for digit in range(10) for _ in kinds[0] for seen in others(digit)])
    noise = attack.find_noise(model, x[chosen], y_target, method="minimal", progress=True)
    reached = attack.reached(model, x[chosen], noise, y_target)

    size = np.where(reached, sizes(noise), np.nan)
    means = np.full((10, 10), np.nan)
    images = np.empty((10, 10, 28, 28))
    for source in range(10):
        images[source, source] = x[kinds[source][0]]
        for seen in others(source):
            pair = np.flatnonzero((y[chosen] == source) & (y_target == seen))
            if reached[pair].any():
                means[source, seen] = np.nanmean(size[pair])
            images[source, seen] = x[chosen[pair[0]]] + noise[pair[0]]

    title = (
        f"{models.title(args.model)}, the smallest noise (minimal) for every pair of digits: "
        f"mean |r|₂ = {np.nanmean(size):.2f}"
    )
    plots.save(draw(images, means, title), output)

    print(f"{models.title(args.model)}: mean |r|_2 over {args.count} digits of each kind")
    print("written   seen as" + " " * 48 + "mean")
    print("       " + "".join(f"{seen:6d}" for seen in range(10)))
    for source in range(10):
        cells = "".join("     -" if np.isnan(m) else f"{m:6.2f}" for m in means[source])
        print(f"{source:7d}{cells}{np.nanmean(means[source]):9.2f}")
    print(f"   mean{''.join(f'{m:6.2f}' for m in np.nanmean(means, axis=0))}")
    print(f"reached the target {reached.mean():.2%} of {len(reached)}")
    print(f"wrote {files.show(output)}")
    return [output]


def others(digit):
    """The nine digits that are not this one."""
    return [other for other in range(10) if other != digit]


if __name__ == "__main__":
    command.run(main)
