"""Attack the same digits with every method, and measure what a regulariser changes.

    python method1_noise_optimization/compare_methods.py --model mlp
    python method1_noise_optimization/compare_methods.py --model mine.keras --samples mine.npz

The figure has a column for each digit and a row for each way to turn it into the same target, or,
with --target any, into the nearest other digit; under each image stand |r|_2 and |r|_inf.  The
first table has their means over LIMIT digits (of a file, --seed draws them), the second the noise
of the three regularisers over all digits of the sample, beside what was published.

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
    "minimal, one start": {"norm": "l2"},
    "smallest ε, sign step": {"norm": "linf", "steps": 1},
    "smallest ε, 500 steps": {"norm": "linf", "steps": 500},
}
# Mean, max and min of the noise, as published with the collection whose method this is, for its
# network; whether the mean is of r or |r| is not said.
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
    noise = attack.find_noise(model, x, y, **WAYS[way])
    return noise, attack.reached(judge, x, noise, y)


def largest(noise):
    """|r|_inf of each noise image (n, ...): (n,)."""
    return np.abs(noise).reshape(len(noise), noise[:1].size).max(axis=1, initial=0)


@plots.our_style()
def draw(x, names, rows, title):
    """The figure: x (k, ...) with names, and a (way, noise, reached) for each row below."""
    fig = plots.figure(1.45 * len(x) + 1.6, 1.72 * (len(rows) + 1) + 0.7, title)
    axes = fig.subplots(len(rows) + 1, len(x), squeeze=False)
    for ax, image, name in zip(axes[0], x, names, strict=True):
        plots.digit(ax, image, name)
    axes[0, 0].set_ylabel("original")
    for line, (way, noise, reached) in zip(axes[1:], rows, strict=True):
        line[0].set_ylabel(way.replace(", ", "\n"))
        for i, (ax, l2, linf) in enumerate(zip(line, sizes(noise), largest(noise), strict=False)):
            plots.digit(ax, x[i] + noise[i] if reached[i] else np.ones_like(x[i]))
            ax.set_xlabel(f"{l2:.2f} | {linf:.2f}" if reached[i] else "not reached", labelpad=3)
    fig.supxlabel("under each image: |r|₂ | |r|∞, in pixel units", fontsize=11)
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    own_model.add_model(parser, "mlp")
    kinds = {"choices": ("random", "any"), "default": "random"}
    parser.add_argument("--target", **kinds, help="any but the label, or random")
    data.add_samples(parser)
    command.add_count(parser, "--limit", "digits of the first table", 500)
    command.add_seed(parser, "of the random targets")
    command.add_output(parser, "the figure to write (default: see above)")
    args = parser.parse_args(argv)
    targeted = args.target == "random"
    name = "noise_methods" + ("" if args.model == "mlp" else f"_{own_model.stem(args.model)}")
    name += "" if targeted else "_any"
    output = plots.check_output(args.output or files.IMG / f"{name}.png", args)
    network, model, judge, x, y, _ = own_model.opened(args)

    right = mnist.correctly_classified([judge], x, y, files.show(args.samples))
    x, y = x[right], y[right]
    y_target = attack.random_targets(y, args.seed, network.classes) if targeted else y
    # One digit of each kind for the figure, in front of those of the table.
    first = np.unique(y, return_index=True)[1][:10]
    others = np.setdiff1d(np.arange(len(x)), first)
    more = max(args.limit - len(first), 0)
    others = others[data.drawn(len(others), more, args.seed) if network.pixels else slice(more)]
    chosen = np.concatenate([first, others])

    ways = list(WAYS) if targeted else list(WAYS)[-3:]
    rows = [
        (way, *noise_of(model, judge, x[chosen], y_target[chosen], way, targeted))
        for way in tqdm(ways, disable=None, unit="way")
    ]
    compared = PUBLISHED if targeted and not network.pixels else ()
    regularized = {
        name: attack.find_noise(model, x, y_target, method="sgd", regularization=name)
        for name in tqdm(compared, disable=None, unit="regulariser")
    }

    names, goal = [network.label(label) for label in y[first]], "the nearest wrong answer by three"
    if targeted:
        names = [f"{n} → {network.label(t)}" for n, t in zip(names, y_target[first], strict=True)]
        goal = "label → target by seven"
    model = mnist.title(args.model)
    title = f"{model}: {'its classes' if network.pixels else 'ten digits'}, {goal} ways"
    plots.save(draw(x[first], names, rows, title), output)

    below = f" above, {len(x)} below" if regularized else ""
    print(f"{model}: {len(chosen)} images{below}")
    print(f"{'':24}reached   mean |r|_2   mean |r|_inf")
    for way, noise, reached in rows:
        hits = noise[reached]
        l2, linf = (f"{part(hits).mean():.4f}" if len(hits) else "-" for part in (sizes, largest))
        print(f"{way:24}{reached.mean():7.1%}{l2:>13}{linf:>15}")
    if regularized:
        print(f"\n{'regularisation':24}mean |r|    mean r       max       min      published")
    for name, noise in regularized.items():
        mean, published = np.abs(noise).mean(), " ".join(f"{v:7.4g}" for v in PUBLISHED[name])
        print(f"{name:24}{mean:8.4f}{noise.mean():10.4f}", end="")
        print(f"{noise.max():10.3f}{noise.min():10.3f}      {published}")
    return [output]


if __name__ == "__main__":
    command.run(main)
