"""The same digits turned by one sign step and by many steps: what `two_to_six.py --steps` draws."""

import numpy as np

from common import models, plots
from method2_fgsm import fgsm
from method2_fgsm.smallest_eps import smallest_eps
from method2_fgsm.source_to_target import reach


def compare(model, name, choice, pair, steps):
    """The figure, and the lines of the table, for the images of a `source_to_target.Choice`.

    name: what the title calls the model.  pair: a `source_to_target.Pair`.
    """
    one_step = reach(choice, pair)
    all_eps, all_x_adv = smallest_eps(
        model, choice.tried, np.full(len(choice.tried), pair.target), steps=steps
    )
    reached = np.isfinite(all_eps).sum()
    eps, x_adv = all_eps[choice.rows], all_x_adv[choice.rows]

    sign = fgsm.gradient_signs(model, choice.x, np.full(len(choice.x), pair.target))
    step = (np.nan_to_num(choice.eps) * sign.T).T
    images = choice.x, np.clip(choice.x - step, 0, 1), x_adv
    after = [models.softmax(models.predict(model, image)) for image in images]
    title = (
        f"{name}: the smallest ε that makes a {pair.source_name} a {pair.target_name}, by one sign "
        f"step and by {steps} steps\n{one_step}, {steps} steps {reached}"
    )
    figure = draw(images, (choice.eps, eps), after, pair, steps, title)

    width = 12 + len(str(steps))
    table = [f"     image   eps, one step   eps, {steps} steps   ratio"]
    for index, one, many in zip(choice.indices, choice.eps, eps, strict=True):
        table.append(f"{index:10d}{one:16.4f}{many:{width}.4f}{one / many:8.2f}")
    table.append(f"mean      {np.nanmean(choice.eps):16.4f}{np.nanmean(eps):{width}.4f}")
    return figure, [*table, one_step, f"{steps} steps turn {reached} of them"]


@plots.our_style()
def draw(images, eps, after, pair, steps, title):
    """The figure: a column for each digit, a row for each way.

    images: three arrays (n, ...), the originals, one step and many.  eps: two arrays (n,), of
    one step and of many.  after: the probabilities (n, classes) for each of the three.
    """
    n = len(images[0])
    fig = plots.figure(1.62 * n + 1.4, 7.4, title)
    axes = fig.subplots(3, n, squeeze=False)
    names = ("original", "one sign step", f"{steps} steps")
    for row, (name, x, p) in enumerate(zip(names, images, after, strict=True)):
        for column, ax in enumerate(axes[row]):
            lines = [] if row == 0 else [f"ε = {eps[row - 1][column]:.3f}"]
            missed = row > 0 and np.isnan(eps[row - 1][column])
            plots.digit(ax, np.ones_like(x[column]) if missed else x[column])
            lines += [f"{pair.source_name}: {p[column, pair.source]:.0%}"]
            lines += [f"{pair.target_name}: {p[column, pair.target]:.0%}"]
            ax.set_xlabel("no ε will do" if missed else "\n".join(lines), labelpad=3)
        axes[row, 0].set_ylabel(name)
    return fig
