"""Draw saved results on MNIST: pairs of original and adversarial digit.

    python method2_fgsm/visualize_mnist.py method2_fgsm/results_mnist_mlp.npz

A random choice of the images that the attack turned (into its target, where it had one), each
pair with "true -> predicted" above.

reads   a result file of mnist_fast_gradient.py (default: the MLP's)
writes  img/fgsm_mnist_{model}.png
"""

import numpy as np

from common import command, files, plots, results
from common.networks import mnist


@plots.our_style()
def draw(saved, chosen, rows, columns, title):
    """The figure: `rows` by `columns` pairs (original | adversarial) of the chosen images."""
    columns, rows = plots.grid(len(chosen), columns, rows)
    fig = plots.figure(2.9 * columns, 1.75 * rows + 0.9, title)
    pairs = plots.groups(fig, len(chosen), columns, rows, 2)
    for image, (original, adversarial) in zip(chosen, pairs, strict=True):
        plots.digit(original, saved["xs"][image], "original")
        label, seen = (
            results.label(saved["config"], saved[key][image])
            for key in ("y_trues", "y_preds_adversarial")
        )
        plots.digit(adversarial, saved["xs"][image] + saved["noises"][image], f"{label} → {seen}")
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    results.add_arguments(parser, "method2_fgsm/results_mnist_mlp.npz", rows=5, columns=4)
    command.add_seed(parser, "which images")
    command.add_output(parser, "the figure to write (default: img/fgsm_mnist_{model}.png)")
    args = parser.parse_args(argv)

    saved = results.load_from(args.results, "method2_fgsm/mnist_fast_gradient.py")
    model, eps, target = (saved["config"][name] for name in ("model", "eps", "target"))
    output = plots.check_output(args.output or files.IMG / f"fgsm_mnist_{model}.png", args)

    turned = saved["y_preds_adversarial"] != saved["y_trues"]
    targeted = "y_targets" in saved
    reached = saved["y_preds_adversarial"] == saved["y_targets"] if targeted else turned
    if not reached.any():
        raise command.Failure(
            f"{files.show(args.results)}: the attack turned no image: try a larger --eps"
        )
    chosen = np.random.default_rng(args.seed).permutation(np.flatnonzero(reached))
    chosen = chosen[: args.rows * args.columns]
    steps = saved["config"].get("steps")
    method = f"{steps} steps" if steps else "fast gradient sign"
    title = f"{mnist.title(model)}, {method}, ε = {eps:g}"
    if target is not None:
        title += f", target {results.label(saved['config'], target)}"
    plots.save(draw(saved, chosen, args.rows, args.columns, title), output)

    noises = saved["noises"]
    print(f"images attacked   {len(noises):8d}")
    print(f"turned            {turned.sum():8d}   {turned.mean():.2%}")
    if targeted:
        print(f"into the target   {reached.sum():8d}   {reached.mean():.2%}")
    print(f"noise mean |r|    {np.abs(noises).mean():8.4f}")
    print(f"noise max         {noises.max():8.4f}")
    print(f"noise min         {noises.min():8.4f}")
    return [output]


if __name__ == "__main__":
    command.run(main)
