"""Draw the photographs that imnet_fast_gradient.py attacked.

    python method2_fgsm/visualize_imnet.py
    python method2_fgsm/visualize_imnet.py method2_fgsm/results_imnet_vgg16.npz --index 3

reads   RESULTS.npz, common/labels.json
writes  img/fgsm_imnet_{model}.png: pairs of original and adversarial photograph, each titled
        "name / name", which is what the network calls the two
        img/panda_style_{model}.png: x + eps * sign(gradient) = adversarial, with label and
        confidence under each, after figure 1 of Goodfellow et al. 2015
"""

import numpy as np

from common import command, files, plots, results
from common.command import Failure
from common.networks import imagenet
from common.run import class_labels

SEEN = ("y_preds", "confidences"), ("y_preds_adversarial", "confidences_adversarial")


def main(argv=None):
    parser = command.Parser(__doc__)
    default = "method2_fgsm/results_imnet_efficientnet_lite0.npz"
    plots.add_arguments(parser, default, rows=3, columns=3)
    index = "the second figure's photograph, from 0 (default: the one most surely called wrong)"
    parser.add_argument("--index", type=int, help=index)
    command.add_output(parser, "the folder to write both figures to", files.IMG)
    args = parser.parse_args(argv)

    attacked = results.load_from(args.results, "method2_fgsm/imnet_fast_gradient.py")
    n, model = len(attacked["xs"]), attacked["config"]["model"]
    index = most_confident(attacked) if args.index is None else args.index
    if not 0 <= index < n:
        raise Failure(f"--index {index}: {files.show(args.results)} holds photographs 0 to {n - 1}")
    pairs, panda = (args.output / f"{name}_{model}.png" for name in ("fgsm_imnet", "panda_style"))
    for output in (pairs, panda):
        plots.check_output(output, args)

    plots.save(draw_pairs(attacked, args.rows, args.columns), pairs)
    plots.save(draw_sum(attacked, index), panda)
    names = class_labels.of_settings(attacked["config"])
    before, after = (
        [f"{names[y]} {sure:.1%}" for y, sure in zip(*(attacked[key] for key in keys), strict=True)]
        for keys in SEEN
    )
    titles = "", "photograph, confidence", "adversarial, confidence"
    print(command.table(titles, zip(range(n), before, after, strict=True)))
    return [pairs, panda]


def most_confident(attacked):
    """The index of the photograph that was called by a wrong name with the most confidence."""
    wrong = attacked["y_preds"] != attacked["y_preds_adversarial"]
    return int(np.where(wrong, attacked["confidences_adversarial"], -1).argmax())


def _heading(attacked):
    config = attacked["config"]
    model, eps, target = (config[name] for name in ("model", "eps", "target"))
    goal = "" if target is None else f", target {class_labels.of_settings(config)[target]}"
    return f"{imagenet.title(model)}, sign step (FGSM), ε = {eps:g} (pixel units){goal}"


def draw_pairs(attacked, rows, columns):
    """A figure of pairs (original | adversarial), the first `rows` x `columns` of them."""
    names, target = class_labels.of_settings(attacked["config"]), attacked["config"]["target"]
    before, after = attacked["y_preds"], attacked["y_preds_adversarial"]
    fooled = before != after if target is None else after == target
    headings = [f"{names[b]} / {names[a]}" for b, a in zip(before, after, strict=True)]
    pairs = [*zip(attacked["xs"], attacked["xs"] + attacked["noises"], strict=True)]
    title = f"{_heading(attacked)}\nanswer before / after (in grey: not fooled)"
    inches = 3.7, 2.25, 0.7
    return plots.photo_groups(pairs, columns, rows, headings, fooled, inches, 11, title)[0]


@plots.our_style()
def draw_sum(attacked, index):
    """The figure x + eps * sign(gradient) = adversarial for one photograph."""
    names = class_labels.of_settings(attacked["config"])
    # With a target the step goes down the gradient.
    sign, j = ("+", "J(x, y)") if attacked["config"]["target"] is None else ("−", "J(x, target)")
    x, noise, step = (attacked[key][index] for key in ("xs", "noises", "signs"))
    # `signs` are of the step; in files of earlier versions, of the gradient.
    plus = "+" if (step * noise).sum() >= 0 else "−"
    panels = {
        "": (x, "x"),
        "_sign": ((step + 1) / 2, f"{'' if plus == sign else '−'}sign(∇ₓ {j})"),
        "_adversarial": (x + noise, f"x {sign} ε sign(∇ₓ {j})"),
    }
    fig = plots.figure(11, 4.7, _heading(attacked))
    axes = fig.subplots(1, 5, width_ratios=(6, 1.6, 6, 0.7, 6))
    for ax, (kind, (image, formula)) in zip(axes[::2], panels.items(), strict=True):
        plots.photo(ax, image)
        label = names[attacked[f"y_preds{kind}"][index]]
        text = f"{formula}\n“{label}”\n{attacked[f'confidences{kind}'][index]:.1%} confidence"
        middle = {"transform": ax.transAxes, "ha": "center", "va": "top"}
        ax.text(0.5, -0.03, text, fontsize=13, linespacing=1.4, **middle)
    for ax, text in zip(axes[1::2], (f"{plus} {attacked['config']['eps']:g} ×", "="), strict=True):
        ax.axis("off")
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", fontsize=18)
    return fig


if __name__ == "__main__":
    command.run(main)
