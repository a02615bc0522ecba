"""The figure of a network's report card."""

import numpy as np

from common import plots
from common.networks import mnist

SHOWN = 4  # images that fall first, and as many that hold longest


@plots.our_style()
def draw(model, x, x_adv, smallest, label, epsilons, curves, count, title):
    """Accuracy against epsilon, and the images whose smallest epsilon is smallest and largest.

    x, x_adv: float32 (n, ...), before and at their smallest epsilon, `smallest` (n,).
    label(place): what a class is called.  curves: accuracies of the first
    `count` images by name at each of `epsilons`.
    """
    fig = plots.figure(14, 7.6, title)
    left, right = fig.subfigures(1, 2, width_ratios=(1, 1.15))
    ax = left.subplots()
    marks = zip(curves.items(), (1, 4, 0), ("o--", "s-", "o-"), strict=True)
    plots.accuracy_curves(ax, epsilons, [(*curve, colour, line) for curve, colour, line in marks])
    ax.legend(title=f"of the first {count} images")
    axes = right.subplots(4, SHOWN)
    for ax in axes.flat:
        ax.set_axis_off()
    order = np.argsort(smallest, kind="stable")
    rows = (0, "fall first", order[:SHOWN]), (2, "hold longest", order[SHOWN:][-SHOWN:])
    for row, heading, images in rows:
        for column, image in enumerate(images):
            for ax, picture in zip(
                axes[row : row + 2, column], (x[image], x_adv[image]), strict=True
            ):
                logits = mnist.predict(model, picture[np.newaxis])
                plots.digit(ax, picture)
                seen = f"{label(logits.argmax()):.14} {mnist.softmax(logits).max():.0%}"
                ax.set_title(seen, fontsize=10)
            ax.set_title(f"ε {smallest[image]:.3f}: {seen}", fontsize=10)
        if len(images):
            axes[row, 0].set_axis_on()
            axes[row, 0].set_ylabel(heading, fontsize=12)
    return fig
