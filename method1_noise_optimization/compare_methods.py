"""The same ten digits under every method, and what a regulariser changes.

    python method1_noise_optimization/compare_methods.py --model mlp
    python method1_noise_optimization/compare_methods.py --model mine.keras --samples mine.npz

The figure has a column for each digit and a row for each way to turn it into the same target:
gradient descent with no, L1 and L2 regularisation, box-constrained L-BFGS, the smallest L2 noise,
the fast gradient sign with its smallest epsilon (not every digit has one), and the smallest
epsilon that many steps find.  Under each image stand |r|_2 and |r|_inf.  The first table has the
means of these over the first LIMIT digits; the second has mean |r|, mean r, max and min for the
three regularisers over all digits of the sample, beside the mean, max and min published with the
collection whose method this is, for its network; for a file of your own there is no second, and
--seed draws the LIMIT.  With `--target any` each digit is to become the nearest other one, by the
three ways that need no target, and there is no second table either.

reads   common/weights/{model}.weights.h5 and common/5k_samples.npz, or a .keras file and samples
writes  img/noise_methods.png, for other models than the MLP img/noise_methods_{model}.png, and
        with --target any img/noise_methods_any.png or img/noise_methods_{model}_any.png
"""

import numpy as np
from tqdm import tqdm

from common import command, data, files, plots
from common.networks import mnist, own_model
from method1_noise_optimization import attack
from method1_noise_optimization.attack import sizes
from method1_noise_optimization.nearest import nearest

# The seven ways, of which the last three need no target: their names, and the settings of
# `attack.search`, or those of `nearest`.
WAYS = {
    "sgd, no regularisation": {"method": "sgd", "regularization": "none"},
    "sgd, L1": {"method": "sgd", "regularization": "l1"},
    "sgd, L2": {"method": "sgd", "regularization": "l2"},
    "lbfgs": {"method": "lbfgs"},
    "minimal": {"norm": "l2"},
    "fgsm, smallest ε": {"norm": "linf", "steps": 1},
    "many steps, smallest ε": {"norm": "linf", "steps": 500},
}
# Mean, max and min of the noise, as published; whether the mean is of r or |r| is not said.
PUBLISHED = {
    "none": (0.0151, 1.002, -0.999),
    "l1": (0.0155, 1.003, -1.000),
    "l2": (0.0150, 1.003, -1.002),
}


def noise_of(model, judge, x, y, way, targeted):
    """The noise of one way, and which images reached their target y, or left their label y, as
    the judge has it."""
    if "norm" in WAYS[way]:
        x_adv, size = nearest(model, x, y, **WAYS[way], targeted=targeted, judge=judge)
        return x_adv - x, np.isfinite(size)
    noise = attack.find_noise(model, x, y, targeted=targeted, **WAYS[way])
    return noise, attack.reached(judge, x, noise, y, targeted=targeted)


@plots.our_style()
def draw(x, names, rows, title):
    """The figure: x (k, ...) with names, and a (way, noise, reached) for each row below."""
    fig = plots.figure(1.45 * len(x) + 1.6, 1.72 * (len(rows) + 1) + 0.7, title)
    axes = fig.subplots(len(rows) + 1, len(x), squeeze=False)
    for column in range(len(x)):
        plots.digit(axes[0, column], x[column], names[column])
    for row, (name, noise, reached) in enumerate(rows, 1):
        largest = np.abs(noise).reshape(len(x), -1).max(axis=1)
        for column, (ax, l2) in enumerate(zip(axes[row], sizes(noise), strict=True)):
            if reached[column]:
                plots.digit(ax, x[column] + noise[column])
                ax.set_xlabel(f"{l2:.2f} | {largest[column]:.2f}", labelpad=3)
            else:
                plots.digit(ax, np.ones_like(x[column]))
                ax.set_xlabel("no ε will do", labelpad=3)
        axes[row, 0].set_ylabel(name.replace(", ", "\n"))
    axes[0, 0].set_ylabel("original")
    fig.supxlabel("under each image: |r|₂ | |r|∞, in pixel units", fontsize=11)
    return fig


def table_of_ways(rows):
    """The lines of the first table, from a (name, noise, reached) for each way."""
    yield f"{'':24}reached   mean |r|_2   mean |r|_inf"
    for name, noise, reached in rows:
        l2 = sizes(noise[reached])
        largest = np.abs(noise[reached]).reshape(len(l2), -1).max(axis=1, initial=0)
        means = f"{l2.mean():13.4f}{largest.mean():15.4f}" if len(l2) else f"{'-':>13}{'-':>15}"
        yield f"{name:24}{reached.mean():7.1%}{means}"


def table_of_regularizers(noises):
    """The lines of the second table, from {regularisation: noise}, beside what was published."""
    yield f"{'regularisation':24}mean |r|    mean r       max       min      published"
    for name, noise in noises.items():
        mean = np.abs(noise).mean()
        yield (
            f"{name:24}{mean:8.4f}{noise.mean():10.4f}{noise.max():10.3f}{noise.min():10.3f}      "
            + " ".join(f"{value:7.4g}" for value in PUBLISHED[name])
        )


def main(argv=None):
    parser = command.Parser(__doc__)
    own_model.add_model(parser, "mlp")
    parser.add_argument(
        "--target", choices=("random", "any"), default="random", help="any but the label, or random"
    )
    data.add_samples(parser)
    command.add_count(parser, "--limit", "digits of the first table", 500)
    command.add_seed(parser, "of the random targets")
    command.add_output(parser, "the figure to write (default: see above)")
    args = parser.parse_args(argv)
    name = "noise_methods" + ("" if args.model == "mlp" else f"_{own_model.stem(args.model)}")
    targeted = args.target == "random"
    name += "" if targeted else "_any"
    output = plots.check_output(args.output or files.IMG / f"{name}.png", args)
    network, model, judge, x, y, _ = own_model.opened(args)

    right = mnist.correctly_classified([judge], x, y, files.show(args.samples))
    x, y = x[right], y[right]
    y_target = attack.random_targets(y, args.seed, network.classes) if targeted else y
    ways = list(WAYS) if targeted else list(WAYS)[-3:]
    # One digit of each kind for the figure, in front of those of the table.
    first = np.unique(y, return_index=True)[1][:10]
    others = np.setdiff1d(np.arange(len(x)), first)
    more = max(args.limit - len(first), 0)
    others = others[data.drawn(len(others), more, args.seed) if network.pixels else slice(more)]
    chosen = np.concatenate([first, others])
    rows = [
        (way, *noise_of(model, judge, x[chosen], y_target[chosen], way, targeted))
        for way in tqdm(ways, disable=None, unit="way")
    ]
    compared = PUBLISHED if targeted and not network.pixels else ()
    regularized = {
        name: attack.find_noise(model, x, y_target, method="sgd", regularization=name)
        for name in tqdm(compared, disable=None, unit="regulariser")
    }

    goal = "the same target by seven ways" if targeted else "the nearest wrong answer by three ways"
    title = (
        f"{mnist.title(args.model)}: {'its classes' if network.pixels else 'ten digits'}, {goal}"
    )
    shown = [(way, noise[: len(first)], reached[: len(first)]) for way, noise, reached in rows]
    names = [network.label(label) for label in y[first]]
    if targeted:
        names = [f"{n} → {network.label(t)}" for n, t in zip(names, y_target[first], strict=True)]
    plots.save(draw(x[first], names, shown, title), output)
    print(
        f"{mnist.title(args.model)}: {len(chosen)} images"
        + (f" above, {len(x)} below" if regularized else "")
    )
    print(*table_of_ways(rows), sep="\n")
    if regularized:
        print("", *table_of_regularizers(regularized), sep="\n")
    return [output]


if __name__ == "__main__":
    command.run(main)
