"""Draw saved results on MNIST: pairs of original and adversarial digit, with label and answer.

    python method2_fgsm/visualize_mnist.py method2_fgsm/results_mnist_mlp.npz

A random choice of the images that the attack turned (into its target, where it had one).

reads   a result file of mnist_fast_gradient.py (default: the MLP's)
writes  img/fgsm_mnist_{model}.png
"""

import numpy as np

from common import command, files, plots, results
from common.networks import mnist


@plots.our_style()
def draw(saved, chosen, rows, columns, title):
    """The figure: `rows` by `columns` pairs (original | adversarial) of the chosen images."""
    fig, pairs = plots.groups(len(chosen), columns, rows, 2, (2.9, 1.75, 0.9), title)
    keys = ("xs", "noises", "y_trues", "y_preds_adversarial")
    images = zip(*(saved[key][chosen] for key in keys), strict=True)
    for (x, noise, *labels), (original, adversarial) in zip(images, pairs, strict=True):
        label, seen = (plots.label(saved["config"], place) for place in labels)
        plots.digit(original, x, f"label {label}")
        plots.digit(adversarial, x + noise, f"answer {seen}")
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    plots.add_arguments(parser, "method2_fgsm/results_mnist_mlp.npz", rows=5, columns=4)
    command.add_seed(parser, "which images")
    command.add_output(parser, "the figure to write (default: img/fgsm_mnist_{model}.png)")
    args = parser.parse_args(argv)

    saved = results.load_from(args.results, "method2_fgsm/mnist_fast_gradient.py")
    model, eps, target = (saved["config"][name] for name in ("model", "eps", "target"))
    output = plots.check_output(args.output or files.IMG / f"fgsm_mnist_{model}.png", args)

    turned = saved["y_preds_adversarial"] != saved["y_trues"]
    targeted = "y_targets" in saved
    reached = results.succeeded(saved)
    if not reached.any():
        raise command.Failure(
            f"{files.show(args.results)}: the attack turned no image: try a larger --eps"
        )
    chosen = np.random.default_rng(args.seed).permutation(np.flatnonzero(reached))
    chosen = chosen[: args.rows * args.columns]
    steps = saved["config"].get("steps")
    many = f"smallest ε ({steps} steps) within" if targeted else f"{steps} projected steps (PGD),"
    title = (
        f"{mnist.title(model)}, {many if steps else 'sign step (FGSM),'} ε = {eps:g} (pixel units)"
    )
    if target is not None:
        title += f", target {plots.label(saved['config'], target)}"
    plots.save(draw(saved, chosen, args.rows, args.columns, title), output)

    noises = saved["noises"]
    rows = [("images attacked", len(noises)), ("turned", turned.sum(), f"{turned.mean():.2%}")]
    if targeted:
        rows.append(("into the target", reached.sum(), f"{reached.mean():.2%}"))
    sizes = {"mean |r|": np.abs(noises).mean(), "max": noises.max(), "min": noises.min()}
    rows += [(f"noise {name}", f"{size:.4f}") for name, size in sizes.items()]
    print(command.table(None, rows))
    return [output]


if __name__ == "__main__":
    command.run(main)
