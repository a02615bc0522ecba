"""The figures of attacked photographs, after figure 5 of Szegedy et al. 2014."""

import numpy as np

from common import files, plots, results
from common.networks import imagenet
from common.run import class_labels
from method1_noise_optimization.attack import sizes
from method1_noise_optimization.photo_noise import GOALS

MEASURED = ("confidences", "confidences_adversarial")
# How much the noise may be amplified: round numbers.
FACTORS = tuple(digit * 10**power for power in range(5) for digit in (1, 2, 5))


def name(config):
    """The name of the figure's file."""
    model, levels, target = (config.get(name) for name in ("model", "levels", "target"))
    goal = files.plain((GOALS.get(target) or class_labels.of_settings(config)[target]).lower())
    if levels is not None:
        first = "one_grey_level" if levels == 1 else f"{levels}_grey_levels"
        goal = "" if goal == "ostrich" else f"_{goal}"
        return f"{first}{goal}_{model}.png"
    other = "" if config["method"] == "minimal" else f"_{config['method']}"
    return f"{goal}_{model}{other}.png"


@plots.our_style()
def draw(found, rows, columns):
    """The figure: `rows` by `columns` photographs, each with its noise and with what comes out."""
    columns, rows = plots.grid(len(found["xs"]), columns, rows)
    n = min(rows * columns, len(found["xs"]))
    x, noises = found["xs"][:n], found["noises"][:n]
    names, levels = class_labels.of_settings(found["config"]), found["config"].get("levels")
    if levels is None:
        factor = amplification(noises)
        amount = [f"|r|₂ = {size:.2f}" for size in sizes(noises)]
        legend = f"photograph | noise × {factor:,}, grey is none | adversarial"
    else:
        factor = 127.5 / levels
        changed = (np.abs(noises) > 1 / 512).mean(axis=(1, 2, 3))
        amount = [f"{share:.1%} of the values changed" for share in changed]
        step = "one level" if levels == 1 else f"{levels} levels at most"
        legend = f"photograph | which values go up or down by {step} of 255 | the file as saved"
    fig = plots.figure(4.3 * columns, 1.87 * rows + 0.8, f"{_heading(found['config'])}\n{legend}")
    for cell, i in zip(fig.subfigures(rows, columns, squeeze=False).flat, range(n), strict=False):
        original, noise, adversarial = cell.subplots(1, 3)
        plots.photo(original, x[i])
        plots.photo(noise, 0.5 + factor * noises[i])
        plots.photo(adversarial, x[i] + noises[i])
        noise.set_xlabel(amount[i], fontsize=11, labelpad=3)
        reached = results.succeeded(found)[i]
        before, after = (
            f"{names[found[y][i]]} {found[confidence][i]:.0%}"
            for y, confidence in zip(("y_preds", "y_preds_adversarial"), MEASURED, strict=True)
        )
        cell.suptitle(f"{before} → {after}", fontsize=12.5, color="black" if reached else "#888888")
    return fig


def amplification(noises):
    """The largest round factor that leaves 99 % of the noise's values within half the range."""
    size = np.quantile(np.abs(noises), 0.99)
    return max([factor for factor in FACTORS if factor * size <= 0.5], default=1)


def _heading(config):
    target = config["target"]
    goal = "another class" if target in GOALS else f"“{class_labels.of_settings(config)[target]}”"
    title = f"What {imagenet.title(config['model'])} takes for {goal}"
    return f"{title} ({config['method']})" if config.get("method") else title


def table(found):
    """Lines for each photograph: what it is seen as before and after, and how large the noise."""
    names = class_labels.of_settings(found["config"])
    head = f"{'photograph, confidence':32} {'adversarial, confidence':32} "
    lines = [f"{head}|r|_2   |r|_inf  changed"]
    changed = (np.abs(found["noises"]) > results.ROUNDING).mean(axis=(1, 2, 3))
    largest = np.abs(found["noises"]).max(axis=(1, 2, 3))
    for i, size in enumerate(sizes(found["noises"])):
        before, after = (
            f"{names[found[y][i]]:24.24} {found[confidence][i]:6.1%} "
            for y, confidence in zip(("y_preds", "y_preds_adversarial"), MEASURED, strict=True)
        )
        lines.append(f"{before} {after} {size:6.4f} {largest[i]:8.5f} {changed[i]:7.1%}")
    return lines
