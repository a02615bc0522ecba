"""Draw against epsilon what attacks leave and what is proven; nobody knows what lies between.

    python method2_fgsm/certified.py

From above the digits that all attacks of robustness.py leave, from below those of which interval
bounds (robust/bounds.py) prove that there is nothing to be found.  Beside it the bounds of one
digit's scores.  An attack that breaks a proof ends the script.

reads   common/mnist.npz, common/weights/{softmax,cnn,mlp,cnn_robust,mlp_certified,
        strided_certified}.weights.h5
writes  img/certified.png and method2_fgsm/proven_eps.npz: for each network the largest epsilon
        that is proven for each test digit, float64 (10000,), NaN where it is none
"""

import numpy as np

from common import command, data, files, plots
from common.networks import mnist

# The networks, and the epsilon they were made for.
NETWORKS = {"softmax": 0.1, "cnn_robust": 0.3, "mlp_certified": 0.1, "strided_certified": 0.3}
EPS = np.round(np.arange(0, 0.401, 0.05), 3)
FINE = np.linspace(0, 0.4, 161)
SHOWN = 0.33  # proven of the digit in the right panel
TURN = 20  # degrees
PROVEN_EPS = files.ROOT / "method2_fgsm" / "proven_eps.npz"
HEADINGS = "network", "eps", "right", "proven", "left by attacks", "proven", "unknown"
# Convolutional networks, proven for all 10,000 test digits (percent), as the tables of
# github.com/google-deepmind/interval-bound-propagation have it.
PUBLISHED = {"Gowal et al. 2019": (97.08, 91.79), "Zhang et al. 2020": (97.75, 93.32)}
PUBLISHED_EPS, PUBLISHED_BESIDE = (0.1, 0.3), "strided_certified"


def both_edges(largest, falls, stands):
    """Digits in percent: (fine,) that are proven, and (eps,) that attacks leave.

    largest: of each digit the largest proven epsilon.  falls: one at which an attack succeeds,
    (n,).  stands: which digits withstand all attacks at each of `EPS`, (eps, n).  Raises `Failure`
    where not all of them can be true.
    """
    from method2_fgsm.robust import ensemble

    on_grid = np.append(EPS, np.inf)[stands.sum(axis=0)]
    ensemble.check_proof(largest, np.minimum(falls, on_grid))
    return [100 * (largest >= eps).mean() for eps in FINE], 100 * stands.mean(axis=1)


@plots.our_style()
def draw(edges, bands, label, largest, count):
    """Both edges of each network, and the bounds of one digit's scores: (fine, classes), twice.

    label, largest: of that digit, and the largest epsilon that is proven for it.  count: of digits.
    """
    fig = plots.figure(14, 7, f"The first {count:,} test digits: withstood, proven, unknown")
    left, right = fig.subfigures(1, 2, width_ratios=(3, 2))
    panels = left.subplots(2, 2, sharex=True, sharey=True, subplot_kw={"ylim": (-2, 102)})
    for ax, (name, (proven, withstood)) in zip(panels.flat, edges.items(), strict=False):
        # What attacks leave at one epsilon, they leave at most at every larger one.
        at_most = withstood[np.searchsorted(EPS, FINE, side="right") - 1]
        ax.fill_between(FINE, proven, at_most, color=plots.COLOURS[1], alpha=0.4, label="unknown")
        attacked = {"color": "black", "marker": "v", "linestyle": "--", "drawstyle": "steps-post"}
        ax.plot(EPS, withstood, **attacked, label="withstand all nine attacks")
        ax.plot(FINE, proven, color=plots.COLOURS[0], linewidth=2, label="proven")
        if name == PUBLISHED_BESIDE:
            for marker, (paper, points) in zip("*P", PUBLISHED.items(), strict=True):
                label_of = f"proven, {paper} (10,000 digits)"
                style = {"markersize": 9, "zorder": 3, "label": label_of}
                ax.plot(PUBLISHED_EPS, points, marker, color=plots.COLOURS[2], **style)
            handles = ax.get_legend_handles_labels()
        ax.set(title=mnist.title(name), xlabel="ε (pixel units)", ylabel="digits (%)")
        ax.label_outer()
    fig.legend(*handles, loc="outside lower center", ncols=3)

    beside = right.subplots()
    low, high = bands
    for digit, (colour, style) in enumerate(zip(plots.COLOURS, plots.LINE_STYLES, strict=True)):
        beside.fill_between(FINE, low[:, digit], high[:, digit], color=colour, alpha=0.3)
        for edge in (low, high):
            beside.plot(FINE, edge[:, digit], style, color=colour, linewidth=1)
        beside.text(-0.01, low[0, digit], digit, ha="right", va="center", color=colour)
    overlap = low[:, label] <= np.delete(high, label, axis=1).max(axis=1)
    beside.axvline(FINE[overlap.argmax()], color="black", linestyle=":")
    beside.axvline(largest, color="black")
    beside.set(xlabel="ε (pixel units)", ylabel="score (logit)", xlim=(-0.03, 0.4))
    title = f"{mnist.title(PUBLISHED_BESIDE)}: bounds of the ten scores of a {label}"
    beside.set_title(f"{title}\nfirst overlap (dotted), end of the proof (solid)")
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    command.add_count(parser, "--count", "how many digits to attack", 300)
    command.add_seed(parser, "random starts, squares, noise")
    command.add_output(parser, "the figure to write", files.IMG / "certified.png")
    args = parser.parse_args(argv)
    plots.check_output(args.output)
    files.check_output(PROVEN_EPS)
    networks = {name: mnist.load(name) for name in NETWORKS}
    sources = {name: mnist.load(mnist.source_of(name)) for name in NETWORKS}
    x, y = data.load("test")
    attacked = x[: args.count], y[: args.count]

    from scipy.ndimage import rotate
    from tqdm import tqdm

    from method2_fgsm.robust import bounds, ensemble

    largest, edges, rows = {}, {}, []
    for name, model in tqdm(networks.items(), disable=None, unit="network"):
        eps, largest[name] = NETWORKS[name], bounds.largest_proven_eps(model, x, y)
        # What is proven at a larger epsilon is at a smaller one; near its end the bisection is too
        # coarse to tell.
        proven = largest[name] >= eps
        near = np.flatnonzero(~proven & (largest[name] + 2.0**-bounds.ROUNDS > eps))
        proven[near] = bounds.proven(model, x[near], y[near], eps)
        _, falls = ensemble.smallest(model, *attacked)
        along = model, sources[name], *attacked, EPS
        stands = ensemble.withstood_along(*along, falls=falls, seed=args.seed)
        edges[name] = both_edges(largest[name][: args.count], falls, stands)
        left = stands[np.searchsorted(EPS, eps)].mean()
        right, proven_few = mnist.classify(model, x) == y, proven[: args.count].mean()
        shares = right.mean(), proven.mean(), left, proven_few, left - proven_few
        rows.append((mnist.title(name), f"{eps:g}", *(f"{share:.2%}" for share in shares)))
    with files.replacing(PROVEN_EPS) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **largest)

    model, largest = networks["strided_certified"], largest["strided_certified"]
    digit = np.abs(np.nan_to_num(largest[: args.count]) - SHOWN).argmin()
    boxes = bounds.box(np.repeat(x[[digit]], len(FINE), axis=0), FINE)
    bands = [edge.numpy() for edge in bounds.scores(model, *boxes)]
    count = len(attacked[0])
    plots.save(draw(edges, bands, y[digit], largest[digit], count), args.output)

    print(f"right, proven: all {len(x):,}; then the first {count:,}")
    print(command.table(HEADINGS, rows))
    turned = np.stack([rotate(image, TURN, reshape=False, order=1) for image in x])
    right = (mnist.classify(model, turned) == y).mean()
    title = mnist.title("strided_certified")
    print(f"{title}, the digits turned by {TURN} degrees: {right:.2%} right")
    return [PROVEN_EPS, args.output]


if __name__ == "__main__":
    command.run(main)
