"""Measure how far the nearest wrong answer is from each digit, in L2, in L∞ and in pixels.

    python method1_noise_optimization/distances.py
    python method1_noise_optimization/distances.py --models softmax mlp cnn --count 1000

On top the share of digits that still stand against the distance of the nearest image with another
answer: |r|_2, |r|_inf, and |r|_0, the pixels that change.  Below, of the network that --model
names, the ten nearest digits and the ten farthest, each above its nearest wrong answer.

reads   common/mnist.npz, common/weights/{model}.weights.h5 of each network
writes  img/distances.png, and method1_noise_optimization/distances.npz with a row for each network:
        names (k,), labels (n,), and the distances l2, linf and l0, float32 (k, n), zero where it is
        wrong as it is and infinite where nothing was found
"""

import numpy as np
from tqdm import tqdm

from common import command, data, files, plots
from common.networks import mnist
from common.run import engine
from method1_noise_optimization.nearest import NORMS, nearest

NETWORKS = *mnist.NAMES, "cnn_adversarial", "cnn_robust", "mlp_certified", "strided_certified"
# Of the searches: a robust network takes several starts.
STARTS, STEPS = 4, 500
SHOWN = 10


@plots.our_style()
def draw(distances, images, shown, title):
    """distances: {norm: {name: (n,)}}; images: {norm: what `draw_digits` takes of one network}."""
    fig = plots.figure(15, 11.5, title)
    top, *parts = fig.subfigures(4, 1, height_ratios=(2.1, 1, 1, 1))
    for ax, part, norm in zip(top.subplots(1, 3), parts, NORMS, strict=True):
        for place, (name, distance) in enumerate(distances[norm].items()):
            stands = 100 * (1 - np.arange(len(distance) + 1) / len(distance))
            steps = np.append(0, np.sort(distance))
            ax.step(steps, stands, where="post", color=plots.COLOURS[place], label=name)
        unit = "pixels" if norm == "l0" else "pixel units"
        ax.set(xlabel=f"distance {NORMS[norm]} ({unit})", ylim=(-2, 102), xlim=(0, None))
        name = f"{shown}, {NORMS[norm]}: the ten nearest digits and the ten farthest; below them"
        draw_digits(part, *images[norm], f"{name} the nearest wrong answer and its distance")
    top.axes[0].set_ylabel("digits still read correctly (%)")
    top.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def draw_digits(fig, x, x_adv, seen, distance, title):
    """Those of the smallest and of the largest distance, each above what it became."""
    fig.suptitle(title, fontsize=12)
    order = np.argsort(distance, kind="stable")
    order = order[(distance[order] > 0) & np.isfinite(distance[order])]
    axes = fig.subplots(2, 2 * SHOWN + 1, width_ratios=(*[1] * SHOWN, 0.3, *[1] * SHOWN))
    plots.hide(axes)
    for rows, chosen in ((axes[:, :SHOWN], order[:SHOWN]), (axes[:, -SHOWN:], order[-SHOWN:])):
        for i, before, after in zip(chosen, *rows, strict=False):
            before.set_visible(True)
            after.set_visible(True)
            plots.digit(before, x[i])
            plots.digit(after, x_adv[i])
            text = f"→ {seen[i]}, {distance[i]:.3f}".removesuffix(".000")
            after.set_xlabel(text, labelpad=2, fontsize=9.5)


def main(argv=None):
    parser = command.Parser(__doc__)
    mnist.add_model(parser, "mlp")
    names = {"nargs": "+", "type": mnist.argument, "default": NETWORKS}
    parser.add_argument("--models", **names, help="the networks")
    command.add_count(parser, "--count", "how many test digits", 100)
    command.add_output(parser, "the figure; beside it FIGURE_distances.npz (default: see above)")
    args = parser.parse_args(argv)
    output = plots.check_output(args.output or files.IMG / "distances.png", args)
    table = files.ROOT / "method1_noise_optimization" / "distances.npz"
    if args.output:  # not mine.npz beside mine.png, which may be somebody's samples
        table = output.with_name(f"{output.stem}_distances.npz")
    files.check_output(table)
    engine.one_thread()  # the same figure on any number of cores
    networks = {name: mnist.load(name) for name in dict.fromkeys([*args.models, args.model])}
    x, y = (part[: args.count] for part in data.load("test"))

    distances, images = {norm: {} for norm in NORMS}, {}
    for name, model in tqdm(networks.items(), disable=None, unit="network"):
        for norm in NORMS:
            x_adv, distance = nearest(model, x, y, norm, starts=STARTS, steps=STEPS)
            distances[norm][mnist.title(name)] = distance
            if name == args.model:
                images[norm] = x, x_adv, mnist.classify(model, x_adv), distance

    with files.replacing(table) as temporary, open(temporary, "wb") as file:
        sizes = {norm: np.float32([*found.values()]) for norm, found in distances.items()}
        np.savez_compressed(file, names=np.array([*networks]), labels=y, **sizes)
    title = f"How far the nearest wrong answer is: the first {len(x):,} test digits"
    plots.save(draw(distances, images, mnist.title(args.model), title), output)

    print(title)
    rows = []
    for name in distances["l2"]:
        found = [distances[norm][name][distances[norm][name] > 0] for norm in NORMS]
        means = [f"{f(size):.4f}" for size in found for f in (np.mean, np.median)]
        rows.append((name, f"{len(found[0]) / len(x):.1%}", *means))
    sizes = [part for norm in ("|r|_2", "|r|_inf", "|r|_0") for part in (f"mean {norm}", "median")]
    print(command.table(("", "accuracy", *sizes), rows))
    return [output, table]


if __name__ == "__main__":
    command.run(main)
