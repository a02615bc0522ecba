"""Draw saved results: original, adversarial image, and the noise between them.

    python method1_noise_optimization/visualize_adv_examples.py
    python method1_noise_optimization/visualize_adv_examples.py RESULTS.npz
    python method1_noise_optimization/visualize_adv_examples.py \
        method1_noise_optimization/results_imnet_efficientnet_lite0_minimal.npz

A random choice of the digits that reached their target, "Orig" the label, "New" what the model
says now.  The noise is in colour: red adds ink, blue takes it away, all on the same scale.

Photographs of attack_imnet.py come in their order, with names and confidences; the noise is
amplified by the factor that the title names, or, where whole grey levels were asked for, shows
which values go up and down (photo_figures.py).

reads   a result file of attack_mnist.py (default: the MLP's by sgd with L2 regularisation) or of
        attack_imnet.py
writes  img/noise_{model}_{method}.png, for sgd without or with L1 regularisation
        img/noise_{model}_sgd_none.png or img/noise_{model}_sgd_l1.png
        for photographs img/{target}_{model}.png or img/one_grey_level_{model}.png
"""

import numpy as np

from common import command, files, plots, results
from common.networks import mnist
from method1_noise_optimization import photo_figures
from method1_noise_optimization.attack import sizes, summary

SCRIPTS = (
    "method1_noise_optimization/attack_mnist.py",
    "method1_noise_optimization/attack_imnet.py",
)


@plots.our_style()
def draw(found, chosen, rows, columns, title):
    """The figure: `rows` by `columns` triples of the chosen images."""
    columns, rows = plots.grid(len(chosen), columns, rows)
    fig = plots.figure(4.2 * columns, 1.75 * rows + 1.5, title)
    groups = plots.groups(fig, len(chosen), columns, rows, 3)
    keys = ("xs", "noises", "y_trues", "y_preds_adversarial")
    x, noises, *labels = (found[key][chosen] for key in keys)
    y, y_adv = ([results.label(found["config"], place) for place in part] for part in labels)
    limit = np.abs(noises).max()
    for i, (original, adversarial, noise) in enumerate(groups):
        plots.digit(original, x[i], f"Orig: {y[i]}")
        plots.digit(adversarial, x[i] + noises[i], f"New: {y_adv[i]}")
        size = sizes(noises[i : i + 1])[0]
        drawn = plots.noise(noise, noises[i], limit, f"|r|₂ = {size:.2f}")
    if x.shape[3:] == (3,):
        fig.supxlabel(f"noise in colour: grey is 0, white and black are ±{limit:.3g}", fontsize=11)
        return fig
    bar = fig.colorbar(drawn, ax=fig.axes, location="bottom", shrink=0.4, aspect=35, pad=0.02)
    bar.set_label("noise r (pixel units)")
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    default = "method1_noise_optimization/results_mlp_sgd_l2.npz"
    results.add_arguments(parser, default, rows=5, columns=3)
    command.add_seed(parser, "which digits are drawn")
    command.add_output(parser, "the figure to write (default: see above)")
    args = parser.parse_args(argv)

    found = results.load_from(args.results, *SCRIPTS)
    if str(found["config"]["script"]).endswith("attack_imnet"):
        output = plots.check_output(
            args.output or files.IMG / photo_figures.name(found["config"]), args
        )
        plots.save(photo_figures.draw(found, args.rows, args.columns), output)
        print("\n".join(photo_figures.table(found)))
        return [output]

    model, method = (found["config"][name] for name in ("model", "method"))
    regularization = found["config"].get("regularization")
    other = f"_{regularization}" if regularization in ("none", "l1") else ""
    output = plots.check_output(
        args.output or files.IMG / f"noise_{model}_{method}{other}.png", args
    )

    reached = results.succeeded(found)
    if not reached.any():
        raise command.Failure(
            f"{files.show(args.results)}: no image reached its target: try more --max-steps"
        )
    chosen = np.random.default_rng(args.seed).permutation(np.flatnonzero(reached))
    kind = "images" if "pixels" in found["config"] else "digits"
    title = f"{mnist.title(model)}, {method}"
    if method == "sgd":
        title += f", regularisation {regularization}"
    title += f": mean |r|₂ = {sizes(found['noises']).mean():.2f} over {len(reached):,} {kind}"
    chosen = chosen[: args.rows * args.columns]
    plots.save(draw(found, chosen, args.rows, args.columns, title), output)

    print(summary(found["noises"], reached))
    return [output]


if __name__ == "__main__":
    command.run(main)
