"""Draw the accuracy under all attacks together against epsilon, for the CNN trained in three ways.

    python method2_fgsm/robustness_vs_epsilon.py

The attacks are those of robustness.py.  Dashed, for the network trained on sign steps, what it
seems to withstand: the accuracy under the sign step alone.

reads   common/mnist.npz, common/weights/{mlp,cnn,cnn_adversarial,cnn_robust}.weights.h5
writes  img/robustness.png
"""

from tqdm import tqdm

from common import command, data, files, plots
from common.networks import mnist

NETWORKS = ("cnn", "cnn_adversarial", "cnn_robust")
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


@plots.our_style()
def draw(curves, illusion, count):
    """The curves in percent, the illusion dashed; beside them the published networks."""
    fig = plots.figure(12, 5.5, f"Accuracy under the worst of nine attacks, {count:,} test digits")
    ax, beside = fig.subplots(1, 2, width_ratios=(2, 1))
    lines = [
        (mnist.title("cnn"), curves["cnn"], 0, "o-"),
        (mnist.title("cnn_adversarial"), curves["cnn_adversarial"], 2, "s-"),
        ("the same, under the sign step (FGSM) alone", illusion, 2, "s--"),
        (mnist.title("cnn_robust"), curves["cnn_robust"], 4, "^-"),
    ]
    plots.accuracy_curves(ax, EPS, lines)
    ax.lines[2].set_markerfacecolor("white")
    fig.legend(loc="outside lower center", ncols=2)

    digits = f"ours: {count:,} test digits,\npublished: 10,000"
    ours = curves[NETWORKS[-1]][EPS.index(PUBLISHED_EPS)]
    rows = sorted((PUBLISHED | {"ours": ours}).items(), key=lambda row: row[1])
    for height, (name, accuracy) in enumerate(rows):
        marker, colour = ("^", plots.COLOURS[4]) if name == "ours" else ("o", "black")
        beside.plot([100 * accuracy], [height], marker, color=colour)
    beside.set_yticks(range(len(rows)), [f"{name}: {accuracy:.1%}" for name, accuracy in rows])
    beside.set(xlabel=f"accuracy (%) within ε = {PUBLISHED_EPS:g}\n({digits})")
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    command.add_count(parser, "--count", "how many test digits", 200)
    command.add_seed(parser, "random starts, squares, noise")
    command.add_output(parser, "the figure to write", files.IMG / "robustness.png")
    args = parser.parse_args(argv)
    output = plots.check_output(args.output, args)
    networks = {name: mnist.load(name) for name in NETWORKS}
    sources = {name: mnist.load(mnist.source_of(name)) for name in NETWORKS}
    x, y = (part[: args.count] for part in data.load("test"))

    from method2_fgsm.robust import ensemble

    curves = {}
    for name, model in tqdm(networks.items(), disable=None, unit="network"):
        _, falls = ensemble.smallest(model, x, y)
        attacked = model, sources[name], x, y, EPS
        stands = ensemble.withstood_along(*attacked, falls=falls, seed=args.seed)
        curves[name] = stands.mean(axis=1)
    illusion = ensemble.sign_step_curve(networks["cnn_adversarial"], x, y, EPS)
    plots.save(draw(curves, illusion, len(x)), output)

    print(f"accuracy under the worst of all attacks, {len(x)} test digits")
    rows = zip(EPS, *curves.values(), illusion, strict=True)
    rows = [(f"{eps:.2f}", *(f"{accuracy:.1%}" for accuracy in row)) for eps, *row in rows]
    print(command.table(("eps", *curves, "its sign step"), rows))
    return [output]


if __name__ == "__main__":
    command.run(main)
