"""The figure and table of `adversarial_training.py`: a network trained on attacks beside the same
one trained plainly."""

import numpy as np
from tqdm import tqdm

from common import command, plots
from common.networks import mnist
from method2_fgsm.accuracy_vs_epsilon import error_rates
from method2_fgsm.pgd import pgd

# Attacked network, and whose gradient the examples are made with, in the order of the legend.
PAIRS = (
    ("plain", "plain"),
    ("adversarial", "adversarial"),
    ("adversarial", "plain"),
    ("plain", "adversarial"),
)
COLOURS = {"plain": 0, "adversarial": 2}
CURVE = np.round(np.arange(0, 0.401, 0.05), 3)
PGD_STEPS = 40
PGD_DIGITS = 1000  # of the curve; the table has all of them
FILTERS = 32
# Goodfellow et al. (2015), section 6 (and 4): maxout network, plain and adversarially trained.
PUBLISHED = {
    "clean error": (0.0114, 0.00782),
    "error, fast gradient sign": (0.894, 0.179),
    "  confidence when wrong": (0.976, 0.814),
    "error, transferred": (0.409, 0.196),
}


def compare(networks, x, y, eps, *, seed, title, published):
    """Compare two networks, a dict with the keys of `COLOURS`, on the digits x with labels y.

    eps: of the table.  published: whether the published errors stand beside ours.
    Returns (figure, table as text).
    """
    along = np.unique(np.append(CURVE, eps))
    signs = {
        (attacked, source): error_rates(networks[attacked], x, y, along, source=networks[source])
        for attacked, source in tqdm(PAIRS, disable=None, unit="curve")
    }
    few = x[:PGD_DIGITS], y[:PGD_DIGITS]
    projected = {name: pgd_errors(net, *few, along, seed) for name, net in networks.items()}
    at_eps = [pgd_errors(network, x, y, [eps], seed)[0] for network in networks.values()]
    filters = {name: first_layer(network) for name, network in networks.items()}
    title = (
        f"{title}:\naccuracy under the fast gradient sign, {len(x):,} test digits; "
        f"projected steps, {len(few[0]):,}"
    )
    figure = draw(signs, projected, along, filters, title)
    return figure, table(signs, int(np.flatnonzero(along == eps)[0]), at_eps, published)


def pgd_errors(model, x, y, eps, seed):
    """The error rate under projected gradient descent at each eps (k,): float64 (k,)."""
    x_adv = (pgd(model, x, y, e, steps=PGD_STEPS, seed=seed) if e else x for e in eps)
    return np.array([(mnist.classify(model, images) != y).mean() for images in x_adv])


def first_layer(model, count=FILTERS):
    """The first layer's weights as images (count, h, w): a unit of a dense layer is 28 x 28."""
    kernel = model.get_weights()[0]
    if kernel.ndim == 2:
        return kernel.T.reshape(-1, 28, 28)[:count]
    return kernel[:, :, 0].transpose(2, 0, 1)[:count]


@plots.our_style()
def draw(signs, projected, eps, filters, title):
    """Accuracy against epsilon (k,), and below it the first layer before and after.

    signs: errors and confidences (2, k) for each of `PAIRS`.  projected: errors (k,) of each
    network.  filters: images (count, h, w) of each.
    """
    count = len(filters["plain"])
    columns = min(8, count // 2)
    rows = -(-count // columns)
    heights = 5.2, 1.3 + rows * 5.4 / columns
    fig = plots.figure(11, sum(heights) + 0.7, title)
    upper, lower = fig.subfigures(2, 1, height_ratios=heights)
    curves = []
    for (attacked, source), (errors, _) in signs.items():
        itself = attacked == source
        against = "itself" if itself else f"the {source}ly trained"
        label = f"{attacked} training, examples made against {against}"
        curves.append((label, 1 - errors, COLOURS[attacked], "o-" if itself else "s--"))
    for name, errors in projected.items():
        label = f"{name} training, {PGD_STEPS} projected steps against itself"
        curves.append((label, 1 - errors, COLOURS[name], "^:"))
    plots.accuracy_curves(upper.add_subplot(), eps, curves)
    upper.legend(loc="outside lower center", ncols=2)

    limit = max(np.quantile(np.abs(images), 0.995) for images in filters.values())
    for part, (name, images) in zip(lower.subfigures(1, 2), filters.items(), strict=True):
        part.suptitle(f"first layer, {name} training")
        axes = part.subplots(rows, columns)
        for ax, image in zip(axes.flat, images, strict=True):
            drawn = plots.noise(ax, image, limit)
        part.colorbar(drawn, ax=axes, location="bottom", shrink=0.7, aspect=30, label="weight")
    return fig


def table(signs, index, projected, published):
    """Errors of both networks at one point of the curves, and the published ones, as text."""
    own, transferred = PAIRS[:2], (PAIRS[3], PAIRS[2])
    rows = {
        "clean error": [signs[pair][0, 0] for pair in own],
        "error, fast gradient sign": [signs[pair][0, index] for pair in own],
        "  confidence when wrong": [signs[pair][1, index] for pair in own],
        "error, transferred": [signs[pair][0, index] for pair in transferred],
        f"error, {PGD_STEPS} projected steps": projected,
    }
    titles, theirs = ["", "plain", "adversarial"], {}
    if published:
        titles, theirs = [*titles, "published, plain", "adversarial"], PUBLISHED
    cells = [
        (name, *(f"{number:.2%}" for number in (*ours, *theirs.get(name, ()))))
        for name, ours in rows.items()
    ]
    return command.table(titles, cells)
