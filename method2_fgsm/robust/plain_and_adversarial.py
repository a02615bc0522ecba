"""The figure and table of `adversarial_training.py`: a network trained on attacks beside the same
one trained plainly."""

import numpy as np
from tqdm import tqdm

from common import command, plots
from common.networks import mnist
from method2_fgsm.accuracy_vs_epsilon import accuracy_at
from method2_fgsm.pgd import pgd

# Attacked network (0: trained plainly), and the one that the sign steps are made for.
PAIRS = (0, 0), (1, 1), (1, 0), (0, 1)
COLOURS = 0, 2
CURVE = np.round(np.arange(0, 0.401, 0.05), 3)
PGD_STEPS = 40
PGD_DIGITS = 1000  # of the curve; the table has all of them
FILTERS = 32
# Goodfellow et al. (2015), section 6 (and 4): maxout network, trained plainly and on sign steps.
PUBLISHED = {
    "accuracy, no attack": (0.9886, 0.99218),
    "accuracy, sign step (FGSM)": (0.106, 0.821),
    "  mean confidence when wrong": (0.976, 0.814),
    "accuracy, sign step made for the other": (0.591, 0.804),
}


def compare(networks, x, y, eps, *, seed, title, published):
    """Compare two networks, a dict by what they are trained on, on the digits x with labels y.

    eps: of the table.  published: whether the published accuracies stand beside ours.
    Returns (figure, table as text).
    """
    along, models = np.unique(np.append(CURVE, eps)), [*networks.values()]
    signs = {
        (attacked, source): accuracy_at(models[attacked], x, y, along, source=models[source])
        for attacked, source in tqdm(PAIRS, disable=None, unit="curve")
    }
    few = x[:PGD_DIGITS], y[:PGD_DIGITS]
    projected = [pgd_accuracy(model, *few, along, seed) for model in models]
    at_eps = [pgd_accuracy(model, x, y, [eps], seed)[0] for model in models]
    filters = {name: first_layer(network) for name, network in networks.items()}
    title += f":\naccuracy under one sign step (FGSM), {len(x):,} test digits, "
    title += f"and under projected steps (PGD), {len(few[0]):,}"
    figure = draw(signs, projected, along, filters, title)
    index = int(np.flatnonzero(along == eps)[0])
    return figure, table([*networks], signs, index, at_eps, published)


def pgd_accuracy(model, x, y, eps, seed):
    """The accuracy under projected gradient descent at each eps (k,): float64 (k,)."""
    x_adv = (pgd(model, x, y, e, steps=PGD_STEPS, seed=seed) if e else x for e in eps)
    return np.array([(mnist.classify(model, images) == y).mean() for images in x_adv])


def first_layer(model, count=FILTERS):
    """The first layer's weights as images (count, h, w): a unit of a dense layer is 28 x 28."""
    kernel = model.get_weights()[0]
    if kernel.ndim == 2:
        return kernel.T.reshape(-1, 28, 28)[:count]
    return kernel[:, :, 0].transpose(2, 0, 1)[:count]


@plots.our_style()
def draw(signs, projected, eps, filters, title):
    """Accuracy against epsilon (k,), and below it the first layer before and after.

    signs: accuracies and confidences (k,) for each of `PAIRS`.  projected: accuracies (k,) of both
    networks.  filters: {what a network is trained on: images (count, h, w)}.
    """
    names, count = [*filters], min(map(len, filters.values()))
    columns = min(8, count // 2)
    rows = -(-count // columns)
    heights = 5.2, 1.3 + rows * 5.4 / columns
    fig = plots.figure(11, sum(heights) + 0.7, title)
    upper, lower = fig.subfigures(2, 1, height_ratios=heights)
    curves = []
    for (attacked, source), (accuracy, _) in signs.items():
        itself = attacked == source
        label = f"{names[attacked]}, sign step made for {'it' if itself else 'the other'}"
        curves.append((label, accuracy, COLOURS[attacked], "o-" if itself else "s--"))
    for name, accuracy, colour in zip(names, projected, COLOURS, strict=True):
        label = f"{name}, {PGD_STEPS} projected steps made for it"
        curves.append((label, accuracy, colour, "^:"))
    plots.accuracy_curves(upper.add_subplot(), eps, curves)
    upper.legend(loc="outside lower center", ncols=2)

    limit = max(np.quantile(np.abs(images), 0.995) for images in filters.values())
    for part, (name, images) in zip(lower.subfigures(1, 2), filters.items(), strict=True):
        part.suptitle(f"first layer, {name}")
        axes = part.subplots(rows, columns)
        for ax, image in zip(axes.flat, images, strict=True):
            drawn = plots.noise(ax, image, limit)
        part.colorbar(drawn, ax=axes, location="bottom", shrink=0.7, aspect=30, label="weight")
    return fig


def table(names, signs, index, projected, published):
    """Accuracies of both networks at one point of the curves, and the published ones, as text."""
    own, transferred = PAIRS[:2], (PAIRS[3], PAIRS[2])
    rows = {
        "accuracy, no attack": [signs[pair][0][0] for pair in own],
        "accuracy, sign step (FGSM)": [signs[pair][0][index] for pair in own],
        "  mean confidence when wrong": [signs[pair][1][index] for pair in own],
        "accuracy, sign step made for the other": [signs[pair][0][index] for pair in transferred],
        f"accuracy, {PGD_STEPS} projected steps (PGD)": projected,
    }
    titles, theirs = ["", *names], {}
    if published:
        titles, theirs = [*titles, *(f"published, {name}" for name in names)], PUBLISHED
    cells = [
        (name, *(f"{number:.2%}" for number in (*ours, *theirs.get(name, ()))))
        for name, ours in rows.items()
    ]
    return command.table(titles, cells)
