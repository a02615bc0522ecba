"""Draw saved results on MNIST: pairs of original and adversarial digit.

    python method2_fgsm/visualize_mnist.py method2_fgsm/results_mnist_mlp.npz

A random choice of the images that the attack turned (into its target, where it had one), each
pair with "true -> predicted" above.

reads   a result file of mnist_fast_gradient.py (default: the MLP's)
writes  img/fgsm_mnist_{model}.png
"""

from pathlib import Path

import numpy as np

from common import command, files, models, plots, results


def draw(found, chosen, rows, columns, title):
    """The figure: `rows` by `columns` pairs (original | adversarial) of the chosen images."""
    columns, rows = plots.grid(len(chosen), columns, rows)
    fig = plots.figure(2.9 * columns, 1.75 * rows + 0.9, title)
    pairs = plots.groups(fig, len(chosen), columns, rows, 2)
    for image, (original, adversarial) in zip(chosen, pairs, strict=True):
        plots.digit(original, found["xs"][image], "original")
        label, seen = found["y_trues"][image], found["y_preds_adversarial"][image]
        plots.digit(adversarial, found["xs"][image] + found["noises"][image], f"{label} → {seen}")
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "results",
        nargs="?",
        type=Path,
        default=files.ROOT / "method2_fgsm" / "results_mnist_mlp.npz",
        help="the result file",
    )
    parser.add_argument("--rows", type=command.positive_int, default=5, help="pairs down")
    parser.add_argument("--columns", type=command.positive_int, default=4, help="pairs across")
    parser.add_argument("--seed", type=command.seed, default=0, help="which images")
    parser.add_argument(
        "--output", type=Path, help="the figure to write (default: img/fgsm_mnist_{model}.png)"
    )
    args = parser.parse_args(argv)

    found = results.load(args.results, remedy="run `python method2_fgsm/mnist_fast_gradient.py`")
    config, noises = found["config"], found["noises"]
    model = config.get("model")
    if not (isinstance(model, str) and models.known(model)) or not isinstance(
        config.get("eps"), float | int
    ):
        raise command.Failure(
            f"{files.show(args.results)} does not say which model and eps it is of: "
            "run `python method2_fgsm/mnist_fast_gradient.py`"
        )
    output = files.check_output(args.output or files.IMG / f"fgsm_mnist_{model}.png")

    turned = found["y_preds_adversarial"] != found["y_trues"]
    reached = found["y_preds_adversarial"] == found["y_targets"] if "y_targets" in found else turned
    if not reached.any():
        raise command.Failure(
            f"{files.show(args.results)}: the attack turned no image: try a larger --eps"
        )
    chosen = np.random.default_rng(args.seed).permutation(np.flatnonzero(reached))
    chosen = chosen[: args.rows * args.columns]
    title = f"{models.title(model)}, fast gradient sign, ε = {config['eps']:g}"
    if config.get("target") is not None:
        title += f", target {config['target']}"
    plots.save(draw(found, chosen, args.rows, args.columns, title), output)

    print(f"images attacked   {len(noises):8d}")
    print(f"turned            {turned.sum():8d}   {turned.mean():.2%}")
    if "y_targets" in found:
        print(f"into the target   {reached.sum():8d}   {reached.mean():.2%}")
    print(f"noise mean |r|    {np.abs(noises).mean():8.4f}")
    print(f"noise max         {noises.max():8.4f}")
    print(f"noise min         {noises.min():8.4f}")
    print(f"wrote {files.show(output)}")
    return [output]


if __name__ == "__main__":
    command.run(main)
