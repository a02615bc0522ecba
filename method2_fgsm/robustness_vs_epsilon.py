"""Accuracy under the worst of all attacks as epsilon grows, for the CNN trained in three ways.

    python method2_fgsm/robustness_vs_epsilon.py

The attacks are those of robustness.py, each tried on the digits that the others left.  A digit
that was fooled within an epsilon is fooled within every larger one.  The networks: trained plainly,
on single sign steps, and on projected steps.  For the second, the accuracy under the sign step
alone is drawn beside it: what it seems to withstand.  At epsilon 0.3 stand the published networks.

reads   common/mnist.npz, common/weights/{cnn,cnn_adversarial,cnn_robust}.weights.h5
writes  img/robustness.png
"""

import numpy as np

from common import command, data, files, models, plots

NETWORKS = ("cnn", "cnn_adversarial", "cnn_robust")
COLOURS, MARKERS = (0, 2, 4), "os^"
EPS = (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
# Under AutoAttack at epsilon 0.3, all 10,000 digits (Croce & Hein 2020, table for MNIST).
PUBLISHED_EPS = 0.3
PUBLISHED = {
    "Wong et al. 2020": 0.8288,
    "Madry et al. 2018": 0.8843,
    "Ding et al. 2020 (MMA)": 0.9132,
    "Gowal et al. 2019 (bounds)": 0.9275,
    "Zhang et al. 2019 (TRADES)": 0.9276,
    "Zhang et al. 2020 (CROWN-IBP)": 0.9395,
}


def worst_curve(model, source, x, y, seed, progress):
    """The share of digits that withstand everything at each of `EPS`: float64 (k,)."""
    from method2_fgsm import battery

    with_gradient, without = battery.attacks(source)
    attacks = [*with_gradient.values(), *without.values()]
    standing, curve = models.classify(model, x) == y, []
    for eps in EPS:
        rows = np.flatnonzero(standing)
        if len(rows) and eps:
            standing[rows] = battery.withstood_all(model, x[rows], y[rows], eps, attacks, seed=seed)
        curve.append(standing.mean())
        progress()
    return np.array(curve)


def draw(curves, illusion, count):
    """The curves in percent, the illusion dashed, and the published networks as points."""
    fig = plots.figure(9, 6, f"CNN: accuracy under the worst of all attacks, {count:,} test digits")
    ax = fig.add_subplot()
    for name, colour, marker in zip(curves, COLOURS, MARKERS, strict=True):
        colour = plots.COLOURS[colour]
        kind = models.title(name) if name != "cnn" else "CNN, trained plainly"
        ax.plot(EPS, 100 * curves[name], color=colour, marker=marker, label=kind)
        if name == "cnn_adversarial":
            ax.plot(
                EPS,
                100 * illusion,
                color=colour,
                marker=marker,
                linestyle="--",
                markerfacecolor="white",
                label="the same, under the sign step alone",
            )
    for number, (label, accuracy) in enumerate(PUBLISHED.items()):
        ax.plot(
            [PUBLISHED_EPS],
            [100 * accuracy],
            color="black",
            marker="+x*1D2"[number],
            linestyle="none",
            label=f"{label}: {accuracy:.1%}",
        )
    ax.set(xlabel="ε (pixel units)", ylabel="accuracy (%)", ylim=(-2, 102))
    ax.legend(loc="lower left", fontsize=9)
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--count", type=command.positive_int, default=200, help="how many test digits"
    )
    command.add_seed(parser, "random starts, squares, noise")
    command.add_output(parser, "the figure to write", files.IMG / "robustness.png")
    args = parser.parse_args(argv)
    output = files.check_output(args.output)
    networks = {name: models.load(name) for name in NETWORKS}
    mlp = models.load("mlp")
    x, y = (part[: args.count] for part in data.load("test"))

    from tqdm import tqdm

    from method2_fgsm.error_rates import error_rates

    with tqdm(total=len(networks) * len(EPS), disable=None, unit="epsilon") as bar:
        curves = {
            name: worst_curve(
                model, mlp if name == "cnn" else networks["cnn"], x, y, args.seed, bar.update
            )
            for name, model in networks.items()
        }
    illusion = 1 - error_rates(networks["cnn_adversarial"], x, y, EPS)[0]
    plots.save(draw(curves, illusion, len(x)), output)

    print(f"accuracy under the worst of all attacks, {len(x)} test digits")
    print("   eps" + "".join(f"{name:>18}" for name in (*curves, "its sign step")))
    for row in zip(EPS, *curves.values(), illusion, strict=True):
        print(f"{row[0]:6.2f}" + "".join(f"{accuracy:18.1%}" for accuracy in row[1:]))
    print(f"wrote {files.show(output)}")
    return [output]


if __name__ == "__main__":
    command.run(main)
