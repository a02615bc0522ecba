"""Transfer: noise that fools one network fools others, which have never been looked at.

    python method1_noise_optimization/transfer.py

First the three models (Szegedy et al. 2014, section 4.2, table 2; Goodfellow et al. 2015, section
8).  Adversarial digits are made for each by the fast gradient sign, away from the label, and by
the smallest noise towards a random wrong digit, and shown to all.  Smallest noise stops where the
network it is made for changes its mind, so it seldom carries over; it is therefore shown once
more at a common size, to which nearly all of it has to be amplified (the few digits that needed
more get less).  Noise sizes are the root mean square over the pixels, sqrt(mean(r**2)), measured
after clipping to [0, 1].

Then networks that share no training digit (the same paper's tables 3 and 4): FC100-100-10 and
FC123-456-10 trained on one half of the training set, FC100-100-10 on the other.  All three are
trained here, in memory: sigmoid units, the paper's weight decay, twenty epochs.

The control is Gaussian noise of the same size.  Clipping leaves only the bright half of it on the
black background, and it takes more of it to have that size: a grey veil, which does far more harm
than the same noise as the paper adds it, unclipped.  The last row shows that one.  Every table is
over test digits that all of its networks classify correctly, so that the errors are the noise's
doing; what is made for a network and shown to it tells the attack's own success.

reads   common/mnist.npz, common/5k_samples.npz, common/weights/{softmax,mlp,cnn}.weights.h5
writes  img/transfer.png
"""

from pathlib import Path

import numpy as np

from common import command, data, files, models, plots, training
from common.command import Failure
from method1_noise_optimization.attack import random_targets

GAUSSIAN = "Gaussian noise"
# Szegedy et al. (2014), table 4: error of each network (columns) on what was made for each (rows)
# and on Gaussian noise, as found (rms 0.058 to 0.062, Gaussian 0.06) and amplified to 0.1.
PUBLISHED = {
    "as found": (
        (1.0, 0.262, 0.059),
        (0.0625, 1.0, 0.051),
        (0.082, 0.082, 1.0),
        (0.022, 0.026, 0.024),
    ),
    "amplified": ((1.0, 0.98, 0.43), (0.96, 1.0, 0.22), (0.27, 0.5, 1.0), (0.026, 0.028, 0.027)),
}
HALVES = {
    "FC100-100-10, half A": ((100, 100), 0),
    "FC123-456-10, half A": ((123, 456), 0),
    "FC100-100-10, half B": ((100, 100), 1),
}
# Goodfellow et al. (2015), section 8: where maxout and softmax regression both err on what was
# made for maxout, they agree on the wrong digit this often.
PUBLISHED_AGREEMENT = 0.846


def size(noise):
    """sqrt(mean(r**2)) of each image (n,): the distortion of Szegedy et al. (2014)."""
    return np.sqrt(np.square(noise.reshape(len(noise), -1), dtype=np.float64).mean(axis=1))


def amplified(x, noise, to, steps=40):
    """clip(x + s * noise) with s, for each image, such that the noise has the size `to` in the end.

    Clipping takes some of the noise away; the size grows with s all the same, so bisection finds
    it.  An image whose noise cannot grow so far gets what there is.
    """
    low, high = np.zeros(len(x)), np.ones(len(x))

    def moved(s):
        return np.clip(x + s[:, np.newaxis, np.newaxis].astype(np.float32) * noise, 0, 1)

    for _ in range(20):
        small = size(moved(high) - x) < to
        if not small.any():
            break
        high[small] *= 2
    for _ in range(steps):
        middle = (low + high) / 2
        small = size(moved(middle) - x) < to
        low, high = np.where(small, middle, low), np.where(small, high, middle)
    return moved(high)


def errors(networks, images, y):
    """Error rates (sources, networks): `images` is a list of (n, 28, 28), `y` (n,) the labels."""
    return np.array(
        [[(models.classify(model, x) != y).mean() for model in networks] for x in images]
    )


def correctly_classified(networks, x, y, count):
    """The first `count` digits that all networks classify correctly: (x, y)."""
    right = np.all([models.classify(model, x) == y for model in networks], axis=0)
    chosen = np.flatnonzero(right)[:count]
    if not len(chosen):
        raise Failure("no digit is classified correctly by all networks: train them again")
    return x[chosen], y[chosen]


def minimal_noise(networks, x, y, seed):
    """The smallest noise found for each network, towards random targets: list of (n, 28, 28)."""
    from tqdm import tqdm

    from method1_noise_optimization import attack

    targets = random_targets(y, seed)
    return [
        attack.find_noise(model, x, targets, method="minimal")
        for model in tqdm(networks, disable=None, unit="network")
    ]


def noise_tables(networks, x, y, to, seed):
    """The two tables of minimal noise, as found and amplified, each with its control.

    Returns {"as found": …, "amplified": …} of (errors (networks + 1, networks), mean sizes
    (networks + 1,), errors (networks,)): the last row is Gaussian noise of the networks' mean
    size, and the last errors are those under Gaussian noise of that size that is not clipped.
    """
    noises = minimal_noise(networks, x, y, seed)
    gaussian = np.random.default_rng(seed + 1).standard_normal(x.shape, np.float32)
    found = np.mean([size(noise).mean() for noise in noises])
    tables = {}
    for kind, images in (
        ("as found", [np.clip(x + noise, 0, 1) for noise in noises]),
        ("amplified", [amplified(x, noise, to) for noise in noises]),
    ):
        scale = np.float32(found if kind == "as found" else to)
        images.append(amplified(x, gaussian, scale))
        sizes = np.array([size(image - x).mean() for image in images])
        unclipped = errors(networks, [x + scale * gaussian], y)[0]
        tables[kind] = errors(networks, images, y), sizes, unclipped
    return tables


def sign_table(networks, x, y, eps, seed):
    """The table of the fast gradient sign, its control, and how often wrong answers agree.

    Returns (errors, sizes) as in `noise_tables`, and agreement (networks, networks): of the
    digits made for one network that it and another both get wrong, the share that they take for
    the same digit.
    """
    from method2_fgsm import fgsm

    images = [fgsm.fgsm(model, x, y, eps) for model in networks]
    seen = np.array([[models.classify(model, image) for model in networks] for image in images])
    wrong = seen != y
    agreement = np.full((len(networks), len(networks)), np.nan)
    for source in range(len(networks)):
        for other in range(len(networks)):
            both = wrong[source, source] & wrong[source, other]
            if both.any():
                same = seen[source, source] == seen[source, other]
                agreement[source, other] = same[both].mean()
    gaussian = np.random.default_rng(seed + 1).standard_normal(x.shape, np.float32)
    mean_size = np.mean([size(image - x).mean() for image in images])
    images.append(amplified(x, gaussian, mean_size))
    sizes = np.array([size(image - x).mean() for image in images])
    return errors(networks, images, y), sizes, agreement


def train_halves(seed):
    """The networks of `HALVES`, trained on their halves of a shuffled training set."""
    order = np.random.default_rng(seed).permutation(60000)
    return [
        training.fit(
            models.fully_connected(hidden, "sigmoid"),
            training.cosine_adam(training.LEARNING_RATE),
            epochs=training.EPOCHS_HIDDEN,
            batch_size=100,
            seed=seed + number,
            rows=order[half::2],
            weight_decay=training.published_decay(hidden),
        )
        for number, (hidden, half) in enumerate(HALVES.values())
    ]


def heat_map(ax, table, rows, columns, title):
    """Error rates in percent, as numbers on colours; the last row is the control."""
    drawn = ax.imshow(100 * table, cmap="Reds", vmin=0, vmax=100, aspect="auto")
    for row, line in enumerate(table):
        for column, error in enumerate(line):
            digits = 0 if error >= 0.0995 or not error else 1
            colour = "white" if error > 0.55 else "black"
            ax.text(
                column, row, f"{100 * error:.{digits}f}", ha="center", va="center", color=colour
            )
    ax.axhline(len(rows) - 1.5, color="white", linewidth=4)
    ax.set_xticks(range(len(columns)), columns, fontsize=9)
    ax.set_yticks(range(len(rows)), rows, fontsize=9)
    ax.set_title(title, fontsize=10)
    ax.grid(False)
    return drawn


def draw(panels):
    """The figure: two rows of heat maps, from (table, rows, columns, title) each."""
    fig = plots.figure(
        14,
        8,
        "Transfer: error in % of each network (columns) on digits made against each (rows)",
    )
    axes = fig.subplots(2, 3)
    for ax, panel in zip(axes.flat, panels, strict=True):
        drawn = heat_map(ax, *panel)
    for ax in axes[:, 0]:
        ax.set_ylabel("made against")
    for ax in axes[1]:
        ax.set_xlabel("shown to")
    fig.colorbar(drawn, ax=axes, shrink=0.6, label="error (%)")
    return fig


def print_table(title, table, sizes, unclipped, rows, columns):
    """The errors with the sizes of the noise, and below them those of `unclipped` noise, if any."""
    width = max(map(len, columns)) + 3
    print(f"\n{title}")
    print(f"{'made against':24}{'size':>7}" + "".join(f"{name:>{width}}" for name in columns))
    for name, line, mean_size in zip(rows, table, sizes, strict=True):
        cells = "".join(f"{error:{width}.1%}" for error in line)
        print(f"{name:24}{mean_size:7.3f}{cells}")
    if unclipped is not None:
        cells = "".join(f"{error:{width}.1%}" for error in unclipped)
        print(f"{'the same, not clipped':24}{sizes[-1]:7.3f}{cells}")


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--eps", type=command.pixel_size, default=0.25, help="of the sign step, in pixel units"
    )
    parser.add_argument(
        "--size",
        type=command.pixel_size,
        default=0.1,
        help="root mean square to which minimal noise is amplified, in pixel units",
    )
    parser.add_argument(
        "--count", type=command.positive_int, default=1000, help="how many digits at most"
    )
    parser.add_argument(
        "--samples", type=Path, default=data.SAMPLES, help="the digits, from generate_5k.py"
    )
    parser.add_argument(
        "--seed", type=command.seed, default=0, help="targets, Gaussian noise, halves, training"
    )
    parser.add_argument(
        "--output", type=Path, default=files.IMG / "transfer.png", help="the figure to write"
    )
    args = parser.parse_args(argv)
    output = files.check_output(args.output)
    x, y, _ = data.load_samples(args.samples)
    networks = [models.load(name) for name in models.NAMES]

    names = ["softmax", "MLP", "CNN"]
    own_x, own_y = correctly_classified(networks, x, y, args.count)
    sign, sign_sizes, agreement = sign_table(networks, own_x, own_y, args.eps, args.seed)
    found = noise_tables(networks, own_x, own_y, args.size, args.seed)
    rows = [*names, GAUSSIAN]

    halves = train_halves(args.seed)
    half_x, half_y = correctly_classified(halves, x, y, args.count)
    half_found = noise_tables(halves, half_x, half_y, args.size, args.seed)
    half_names = list(HALVES)
    half_rows = [*half_names, GAUSSIAN]
    half_ticks = [name.replace(", ", "\n") for name in half_names]

    published = np.array(PUBLISHED["amplified"])
    size_label = f"size {args.size:g}"
    panels = [
        (sign, rows, names, f"fast gradient sign, ε = {args.eps:g}"),
        (found["as found"][0], rows, names, "smallest noise, as found"),
        (found["amplified"][0], rows, names, f"smallest noise, amplified to {size_label}"),
        (
            half_found["as found"][0],
            [*half_ticks, GAUSSIAN],
            half_ticks,
            "disjoint halves, as found",
        ),
        (
            half_found["amplified"][0],
            [*half_ticks, GAUSSIAN],
            half_ticks,
            f"disjoint halves, amplified to {size_label}",
        ),
        (published, [*half_ticks, GAUSSIAN], half_ticks, "the same as published, amplified to 0.1"),
    ]
    plots.save(draw(panels), output)

    print(f"\n{len(own_x)} digits that all three models classify correctly")
    print_table(f"fast gradient sign, eps {args.eps:g}", sign, sign_sizes, None, rows, names)
    print_table("smallest noise, as found", *found["as found"], rows, names)
    print_table("smallest noise, amplified", *found["amplified"], rows, names)
    print("\nfast gradient sign: wrong answers that agree, where both are wrong")
    for name, line in zip(names, agreement, strict=True):
        print(f"{name:24}{'':7}" + "".join(f"{share:10.1%}" for share in line))
    print(f"{'published: made against maxout, softmax agrees':49}{PUBLISHED_AGREEMENT:.1%}")
    print(f"\n{len(half_x)} digits that all three half-trained networks classify correctly")
    for kind, title in (("as found", "smallest noise, as found"), ("amplified", "amplified")):
        print_table(title, *half_found[kind], half_rows, half_names)
        print("published (all test digits, made against and shown to the same networks)")
        for name, line in zip(half_rows, PUBLISHED[kind], strict=True):
            print(f"{name:24}{'':7}" + "".join(f"{error:23.1%}" for error in line))
    print(f"wrote {files.show(output)}")
    return [output]


if __name__ == "__main__":
    command.run(main)
