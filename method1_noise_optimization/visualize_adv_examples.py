"""Draw saved results: original, adversarial image, and the noise between them.

    python method1_noise_optimization/visualize_adv_examples.py
    python method1_noise_optimization/visualize_adv_examples.py RESULTS.npz

A random choice of the digits that reached their target, with label and new answer.  Photographs
come in their order; their noise is amplified by the factor that the title names, or shows which
values go up or down by whole grey levels (Szegedy et al. 2014, figure 5).

reads   a result file of attack_mnist.py (default: the MLP's by sgd) or of attack_imnet.py
writes  img/noise_{model}_{method}.png, for sgd without or with L1 regularisation
        img/noise_{model}_sgd_none.png or img/noise_{model}_sgd_l1.png
        for photographs img/{target}_{model}.png or img/one_grey_level_{model}.png
"""

import numpy as np

from common import command, files, plots, results
from common.networks import imagenet, mnist
from common.run import class_labels
from method1_noise_optimization.attack import counts, sizes, summary
from method1_noise_optimization.photo_noise import GOALS

SCRIPTS = (
    "method1_noise_optimization/attack_mnist.py",
    "method1_noise_optimization/attack_imnet.py",
)
# How much the noise may be amplified: round numbers.
FACTORS = tuple(digit * 10**power for power in range(5) for digit in (1, 2, 5))


@plots.our_style()
def draw(found, chosen, rows, columns, title):
    """The figure: `rows` by `columns` triples of the chosen images."""
    fig, groups = plots.groups(len(chosen), columns, rows, 3, (4.2, 1.75, 1.5), title)
    x, noises = found["xs"][chosen], found["noises"][chosen]
    limit, (norm, amount, digits), label = np.abs(noises).max(), amounts(found), plots.label
    for i, (original, adversarial, noise) in enumerate(groups):
        y, y_adv = (found[key][chosen[i]] for key in ("y_trues", "y_preds_adversarial"))
        plots.digit(original, x[i], f"label {label(found['config'], y)}")
        plots.digit(adversarial, x[i] + noises[i], f"answer {label(found['config'], y_adv)}")
        drawn = plots.noise(noise, noises[i], limit, f"{norm} = {amount[chosen[i]]:.{digits}f}")
    if x.shape[3:] == (3,):
        fig.supxlabel(f"noise in colour: grey is 0, white and black are ±{limit:.3g}", fontsize=11)
        return fig
    bar = fig.colorbar(drawn, ax=fig.axes, location="bottom", shrink=0.4, aspect=35, pad=0.02)
    bar.set_label("noise r (pixel units): red is up, blue is down")
    return fig


def photo_name(config):
    """The name of the figure of photographs."""
    model, levels, target = (config.get(name) for name in ("model", "levels", "target"))
    goal = files.plain((GOALS.get(target) or class_labels.of_settings(config)[target]).lower())
    if levels is None:
        method = config["method"]
        if method == "survive" and goal == "ostrich":
            return f"survive_{model}.png"
        return f"{goal}_{model}{'' if method == 'minimal' else f'_{method}'}.png"
    first = "one_grey_level" if levels == 1 else f"{levels}_grey_levels"
    return f"{first}{'' if goal == 'ostrich' else f'_{goal}'}_{model}.png"


@plots.our_style()
def draw_photographs(found, rows, columns):
    """The figure: `rows` by `columns` photographs, each with its noise and with what comes out."""
    x, noises = (found[key][: rows * columns] for key in ("xs", "noises"))
    config = found["config"]
    levels, target, method = (config.get(key) for key in ("levels", "target", "method"))
    if levels is None:
        # The largest that leaves 99 % of the noise's values within half the range.
        large = np.quantile(np.abs(noises), 0.99)
        factor = max([factor for factor in FACTORS if factor * large <= 0.5], default=1)
        amount = [f"|r|₂ = {size:.2f}" for size in sizes(noises)]
        legend = f"photograph | noise × {factor:,}, grey is none | "
        legend += "after a messenger: 600 pixels, JPEG 70" if "sent" in found else "adversarial"
    else:
        factor = 127.5 / levels
        changed = (np.abs(noises) > 1 / 512).mean(axis=(1, 2, 3))
        amount = [f"{share:.1%} of the values changed" for share in changed]
        step = "one level" if levels == 1 else f"{levels} levels at most"
        legend = f"photograph | which values go up or down by {step} of 255 | the file as saved"
    goal = "another class" if target in GOALS else f"“{class_labels.of_settings(config)[target]}”"
    title = f"What {imagenet.title(config['model'])} takes for {goal}"
    title += f" ({method})" if method else ""
    after = found["sent"][: rows * columns] if "sent" in found else x + noises
    groups = [*zip(x, 0.5 + factor * noises, after, strict=True)]
    when = "_sent" if "sent" in found else "_adversarial"
    headings = map("{} → {}".format, *answers(found, "{} {:.0%}", when))
    hits = results.succeeded(found | {"y_preds_adversarial": found[f"y_preds{when}"]})
    inches, title = (4.3, 1.87, 0.8), f"{title}\n{legend}"
    fig, axes = plots.photo_groups(groups, columns, rows, headings, hits, inches, 12.5, title)
    for (_, noise, _), text in zip(axes, amount, strict=True):
        noise.set_xlabel(text, fontsize=11, labelpad=3)
    return fig


def answers(found, form, after="_adversarial"):
    """What the network says of each photograph, and of what became of it: two lists of text.

    form: how a name and a confidence are written.  after: of which answers.
    """
    names, texts = class_labels.of_settings(found["config"]), []
    for when in ("", after):
        seen = zip(found[f"y_preds{when}"], found[f"confidences{when}"], strict=True)
        texts.append([form.format(names[y], confidence) for y, confidence in seen])
    return texts


def amounts(found):
    """The norm in which results are shown, that of each image's noise (n,), and its decimals."""
    if found["config"]["method"] == "fewest":
        return "|r|₀", counts(found["noises"]), 0
    return "|r|₂", sizes(found["noises"]), 2


def photo_table(found):
    """Each photograph's answers before and after, and how large its noise is, as text."""
    noises = np.abs(found["noises"])
    changed, largest = (noises > results.ROUNDING).mean(axis=(1, 2, 3)), noises.max(axis=(1, 2, 3))
    columns = *answers(found, "{} {:.1%}"), sizes(found["noises"]), largest, changed
    rows = [
        (before, after, f"{size:.4f}", f"{most:.5f}", f"{share:.1%}")
        for before, after, size, most, share in zip(*columns, strict=True)
    ]
    titles = "photograph, confidence", "adversarial, confidence", "|r|_2", "|r|_inf", "changed"
    return command.table(titles, rows)


def main(argv=None):
    parser = command.Parser(__doc__)
    default = "method1_noise_optimization/results_mlp_sgd_l2.npz"
    plots.add_arguments(parser, default, rows=5, columns=3)
    command.add_seed(parser, "which digits are drawn")
    command.add_output(parser, "the figure to write (default: see above)")
    args = parser.parse_args(argv)

    found = results.load_from(args.results, *SCRIPTS)
    config, shape = found["config"], (args.rows, args.columns)
    if str(config["script"]).endswith("attack_imnet"):
        output = plots.check_output(args.output or files.IMG / photo_name(config), args)
        plots.save(draw_photographs(found, *shape), output)
        print(photo_table(found))
        return [output]

    model, method, kind = (config.get(key) for key in ("model", "method", "regularization"))
    name = f"noise_{model}_{method}" + (f"_{kind}" if kind in ("none", "l1") else "")
    output = plots.check_output(args.output or files.IMG / f"{name}.png", args)
    reached = results.succeeded(found)
    if not reached.any():
        raise command.Failure(
            f"{files.show(args.results)}: no image reached its target: try more --max-steps"
        )
    chosen = np.random.default_rng(args.seed).permutation(np.flatnonzero(reached))
    title = f"{mnist.title(model)}, noise found by {method}"
    title += f", regularisation {kind}" if method == "sgd" else ""
    norm, amount, _ = amounts(found)
    title += f": mean {norm} = {amount.mean():.2f} over {len(reached):,} "
    title += "images" if "pixels" in config else "digits"
    plots.save(draw(found, chosen[: args.rows * args.columns], *shape, title), output)
    print(summary(found["noises"], reached))
    return [output]


if __name__ == "__main__":
    command.run(main)
