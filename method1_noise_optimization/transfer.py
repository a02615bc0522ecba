"""Show noise made for one network to others: does it fool them too?

    python method1_noise_optimization/transfer.py
    python method1_noise_optimization/transfer.py --models mlp cnn cnn_robust

Digits made for each of the models, by the sign step (FGSM), and by the smallest noise towards a
random wrong digit, as found and amplified to a common size (Szegedy et al. 2014, tables 2 to 4;
Goodfellow et al. 2015, section 8); then for networks that share no training digit, trained here.
Sizes are sqrt(mean(r**2)) after clipping to [0, 1].  The control is Gaussian noise of that size.
Every table is over test digits that all of its networks classify correctly.

reads   common/mnist.npz, common/5k_samples.npz, common/weights/{softmax,mlp,cnn}.weights.h5
writes  img/transfer.png (for other --models: img/transfer_{models}.png)
"""

import textwrap

import numpy as np
from tqdm import tqdm

from common import command, data, files, plots
from common.networks import mnist, training
from method1_noise_optimization import attack
from method1_noise_optimization.attack import distortions

GAUSSIAN = "Gaussian noise"
# Szegedy et al. (2014), table 4, as accuracies: of each network (columns) on what was made for each
# (rows) and on Gaussian noise, as found (rms 0.058 to 0.062, Gaussian 0.06) and amplified to 0.1.
PUBLISHED = {
    "as found": (
        (0.0, 0.738, 0.941),
        (0.9375, 0.0, 0.949),
        (0.918, 0.918, 0.0),
        (0.978, 0.974, 0.976),
    ),
    "amplified": ((0.0, 0.02, 0.57), (0.04, 0.0, 0.78), (0.73, 0.5, 0.0), (0.974, 0.972, 0.973)),
}
HALVES = {
    "FC100-100-10 (half A)": ((100, 100), 0),
    "FC123-456-10 (half A)": ((123, 456), 0),
    "FC100-100-10 (half B)": ((100, 100), 1),
}
# Goodfellow et al. (2015), section 8: where maxout and softmax regression both err on what was
# made for maxout, they agree on the wrong digit this often.
PUBLISHED_AGREEMENT = 0.846


def train_halves(seed):
    """The networks of `HALVES`, trained on their halves of a shuffled training set."""
    order = np.random.default_rng(seed).permutation(60000)
    return [
        training.fit(
            mnist.fully_connected(hidden, "sigmoid"),
            training.cosine_adam(training.LEARNING_RATE),
            epochs=training.EPOCHS_HIDDEN,
            batch_size=100,
            seed=seed + number,
            rows=order[half::2],
            weight_decay=training.published_decay(hidden),
        )
        for number, (hidden, half) in enumerate(HALVES.values())
    ]


def amplified(x, noise, to, steps=40):
    """clip(x + s * noise) with s, for each image, such that the noise has the size `to` in the end.

    Clipping takes some of the noise away; the size grows with s all the same, so bisection finds
    it.  An image whose noise cannot grow so far gets what there is.
    """
    low, high = np.zeros(len(x)), np.ones(len(x))

    def moved(s):
        return np.clip(x + s[:, np.newaxis, np.newaxis].astype(np.float32) * noise, 0, 1)

    for _ in range(20):
        high[distortions(moved(high) - x) < to] *= 2
    for _ in range(steps):
        middle = (low + high) / 2
        small = distortions(moved(middle) - x) < to
        low, high = np.where(small, middle, low), np.where(small, high, middle)
    return moved(high)


def answers(networks, images):
    """What each network says of each set of images (n, 28, 28): (sets, networks, n)."""
    return np.array([[mnist.classify(model, x) for model in networks] for x in images])


def table(networks, x, y, images, gaussian, size):
    """The accuracies and the mean sizes of a list of adversarial images, and last of the control.

    gaussian: standard normal noise like x, which is scaled to `size`.
    Returns (sets + 1, networks) and (sets + 1,).
    """
    images = [*images, amplified(x, gaussian, size)]
    sizes = np.array([distortions(image - x).mean() for image in images])
    return (answers(networks, images) == y).mean(axis=2), sizes


def noise_tables(networks, x, y, to, seed):
    """The two tables of minimal noise towards random targets: {"as found": …, "amplified": …}.

    Each is (accuracies, sizes, unclipped), as `table` gives them, and the accuracies (networks,)
    under the control where it is not clipped.
    """
    targets = attack.random_targets(y, seed)
    noises = [
        attack.find_noise(model, x, targets, method="minimal")
        for model in tqdm(networks, disable=None, unit="network")
    ]
    gaussian = np.random.default_rng(seed + 1).standard_normal(x.shape, np.float32)
    size = np.float32(np.mean([distortions(noise).mean() for noise in noises]))
    images = {
        "as found": (size, [np.clip(x + noise, 0, 1) for noise in noises]),
        "amplified": (np.float32(to), [amplified(x, noise, to) for noise in noises]),
    }
    return {
        kind: (
            *table(networks, x, y, made, gaussian, size),
            (answers(networks, [x + size * gaussian])[0] == y).mean(axis=1),
        )
        for kind, (size, made) in images.items()
    }


def sign_table(networks, x, y, eps, seed):
    """The table of the sign step, and how often wrong answers agree.

    Returns (accuracies, sizes, agreement): as `table` gives them, and (networks, networks): of the
    digits made for one network that it and another both get wrong, the share that they take for
    the same digit.
    """
    from method2_fgsm import fgsm

    images = [fgsm.fgsm(model, x, y, eps) for model in networks]
    gaussian = np.random.default_rng(seed + 1).standard_normal(x.shape, np.float32)
    size = np.mean([distortions(image - x).mean() for image in images])
    seen = answers(networks, images)
    agreement = np.full(seen.shape[:2], np.nan)
    for source, other in np.ndindex(agreement.shape):
        own, others = seen[source, source], seen[source, other]
        both = (own != y) & (others != y)
        if both.any():
            agreement[source, other] = (own == others)[both].mean()
    return *table(networks, x, y, images, gaussian, size), agreement


@plots.our_style()
def draw(panels):
    """The figure: two rows of heat maps, from (accuracies, names of the networks, title) each; the
    last row of accuracies (networks + 1, networks) is the control."""
    title = (
        "Does noise made for one network (rows) fool others (columns)? Accuracy in %; red: fooled"
    )
    fig = plots.figure(14, 8, title)
    axes = fig.subplots(2, 3)
    for ax, (accuracies, names, heading) in zip(axes.flat, panels, strict=True):
        drawn = ax.imshow(100 * accuracies, cmap="Reds_r", vmin=0, vmax=100, aspect="auto")
        for (row, column), accuracy in np.ndenumerate(accuracies):
            text = f"{100 * accuracy:.1f}".removesuffix(".0")
            colour = "white" if accuracy < 0.45 else "black"
            ax.text(column, row, text, ha="center", va="center", color=colour)
        ax.axhline(len(names) - 0.5, color="white", linewidth=4)
        ticks = [textwrap.fill(name, 15) for name in (*names, GAUSSIAN)]
        ax.set_xticks(range(len(names)), ticks[:-1], fontsize=8)
        ax.set_yticks(range(len(ticks)), ticks, fontsize=9)
        ax.set_title(heading, fontsize=10)
        ax.grid(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("made for")
    for ax in axes[1]:
        ax.set_xlabel("shown to")
    fig.colorbar(drawn, ax=axes, shrink=0.6, label="accuracy (%): low is fooled")
    return fig


def print_table(title, accuracies, sizes, unclipped, names):
    """The accuracies with the sizes of the noise, below them those of `unclipped` noise, if any."""
    lines = zip([*names, GAUSSIAN], sizes, accuracies, strict=True)
    rows = [(name, f"{size:.3f}", *percent(line)) for name, size, line in lines]
    if unclipped is not None:
        rows.append(("the same, not clipped", f"{sizes[-1]:.3f}", *percent(unclipped)))
    print(f"\naccuracy: {title}")
    print(command.table(("made for", "size", *names), rows))


def percent(shares):
    """Shares as text, in percent."""
    return [f"{share:.1%}" for share in shares]


def main(argv=None):
    parser = command.Parser(__doc__)
    pixels = command.pixel_size
    command.option(parser, "--eps", pixels, 0.25, "of the sign step, in pixel units")
    size = "root mean square to which minimal noise is amplified, in pixel units"
    command.option(parser, "--size", pixels, 0.1, size)
    command.add_count(parser, "--count", "how many digits at most", 1000)
    models = "the classifiers of the first tables"
    command.option(parser, "--models", mnist.argument, mnist.NAMES, models, nargs="+")
    data.add_samples(parser)
    command.add_seed(parser, "targets, Gaussian noise, halves, training")
    command.add_output(parser, "the figure to write (default: see above)")
    args = parser.parse_args(argv)
    suffix = "" if tuple(args.models) == mnist.NAMES else f"_{'_'.join(args.models)}"
    output = plots.check_output(args.output or files.IMG / f"transfer{suffix}.png", args)
    x, y, _ = data.load_samples(args.samples)

    def right(networks):
        """The digits that all of them classify correctly."""
        places = mnist.correctly_classified(networks, x, y, files.show(args.samples))[: args.count]
        return x[places], y[places]

    networks = [mnist.load(name) for name in args.models]
    digits = right(networks)
    accuracies, sizes, agreement = sign_table(networks, *digits, args.eps, args.seed)
    own = noise_tables(networks, *digits, args.size, args.seed)
    halves = train_halves(args.seed)
    half_digits = right(halves)
    half = noise_tables(halves, *half_digits, args.size, args.seed)

    names, half_names = [mnist.title(name) for name in args.models], list(HALVES)
    panels = [
        (accuracies, names, f"sign step (FGSM), ε = {args.eps:g}"),
        (own["as found"][0], names, "smallest noise, as found"),
        (own["amplified"][0], names, f"smallest noise, amplified to size {args.size:g}"),
        (half["as found"][0], half_names, "smallest noise, disjoint halves, as found"),
        (half["amplified"][0], half_names, f"disjoint halves, amplified to size {args.size:g}"),
        (np.array(PUBLISHED["amplified"]), half_names, "the same, as published (to 0.1)"),
    ]
    plots.save(draw(panels), output)

    print(f"\n{len(digits[0])} digits that all these models classify correctly")
    print_table(f"sign step (FGSM), eps {args.eps:g}", accuracies, sizes, None, names)
    print_table("smallest noise, as found", *own["as found"], names)
    print_table("smallest noise, amplified", *own["amplified"], names)
    print("\nsign step (FGSM): wrong answers that agree, where both are wrong")
    rows = [(name, *percent(line)) for name, line in zip(names, agreement, strict=True)]
    print(command.table(("made for", *names), rows))
    print(f"published: made for maxout, softmax agrees   {PUBLISHED_AGREEMENT:.1%}")
    print(f"\n{len(half_digits[0])} digits that all three half-trained networks classify correctly")
    for kind, title in (("as found", "smallest noise, as found"), ("amplified", "amplified")):
        print_table(title, *half[kind], half_names)
        published = zip([*half_names, GAUSSIAN], PUBLISHED[kind], strict=True)
        print("published (accuracy on all test digits, by the same networks)")
        print(command.table(None, [(name, *percent(line)) for name, line in published]))
    return [output]


if __name__ == "__main__":
    command.run(main)
