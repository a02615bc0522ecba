"""Draw loss gradients and smallest noise of the CNN trained in three ways.

    python method2_fgsm/robust_gradients.py

For ten test digits the gradient of the loss by the pixels (after Tsipras et al. 2019, "Robustness
May Be at Odds with Accuracy", figure 2), and the smallest noise towards any other digit in L∞
and in L2.  The table is over more digits, those that all three networks classify correctly.

reads   common/mnist.npz, common/weights/{cnn,cnn_adversarial,cnn_robust}.weights.h5
writes  img/robust_gradients.png
"""

import textwrap

import numpy as np

from common import command, data, files, plots
from common.command import Failure
from common.networks import mnist
from common.run import engine

NETWORKS = "cnn", "cnn_adversarial", "cnn_robust"
EPS_STEPS, L2_STARTS = 500, 4


def loss_gradient(model, x, y):
    """The gradient of the cross entropy by the pixels: float32, like x, (n, 28, 28)."""
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = tf.cast(model(x, training=False), tf.float64)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
    return tape.gradient(loss, x).numpy()


@plots.our_style()
def draw(networks, x, y, gradients, in_box, in_l2):
    """The digits x, (10, 28, 28), and for each network, by its name, as many gradients, and
    adversarial digits of the smallest epsilon (in_box) and |r|_2 (in_l2)."""
    rows = 1 + 3 * len(NETWORKS)
    title = (
        "Gradient of the loss (red: a brighter pixel raises it, blue: lowers it), and digits after"
    )
    title += " the smallest noise towards another answer; above them this answer, and ε or |r|₂"
    fig = plots.figure(12, 1.3 * rows + 0.6, title)
    axes = fig.subplots(rows, len(x))
    names = {name: textwrap.fill(mnist.title(name), 16) for name in NETWORKS}
    for ax, image, label in zip(axes[0], x, y, strict=True):
        plots.digit(ax, image, str(label))
    for line, (name, images) in zip(axes[1:4], gradients.items(), strict=True):
        line[0].set_ylabel(f"gradient,\n{names[name]}", fontsize=9)
        for ax, image in zip(line, images, strict=True):
            # The sizes differ by orders of magnitude; what counts is the pattern.
            plots.noise(ax, image, np.quantile(np.abs(image), 0.995) or 1)
    for kind, found, lines in (("ε", in_box, axes[4:7]), ("|r|₂", in_l2, axes[7:])):
        for line, (name, images) in zip(lines, found.items(), strict=True):
            line[0].set_ylabel(f"smallest {kind},\n{names[name]}", fontsize=9)
            seen = mnist.classify(networks[name], images)
            for ax, image, before, digit in zip(line, images, x, seen, strict=True):
                r = image - before
                size = np.abs(r).max() if kind == "ε" else np.linalg.norm(r)
                plots.digit(ax, image)
                ax.set_title(f"→ {digit}, {kind} {size:.2f}", fontsize=9)
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    command.add_count(parser, "--count", "digits of the table", 100)
    command.add_output(parser, "the figure to write", files.IMG / "robust_gradients.png")
    args = parser.parse_args(argv)
    output = plots.check_output(args.output, args)
    engine.one_thread()  # the same figure on any number of cores
    networks = {name: mnist.load(name) for name in NETWORKS}
    x, y = data.load("test")

    from method1_noise_optimization.nearest import nearest

    right = mnist.correctly_classified(networks.values(), x, y, "the test set")
    chosen = right[: args.count]
    x, y = x[chosen], y[chosen]
    digits, shown = np.unique(y, return_index=True)  # the first of each digit
    if missing := set(range(data.CLASSES)) - set(digits):
        raise Failure(f"no {min(missing)} among {len(y)} digits: ask for more with --count")
    gradients, in_box, in_l2, sizes = {}, {}, {}, {}
    for name, model in networks.items():
        in_l2[name], l2 = nearest(model, x, y, "l2", starts=L2_STARTS, progress=True)
        in_box[name], eps = nearest(model, x, y, "linf", steps=EPS_STEPS)
        sizes[name] = eps.mean(), l2.mean()  # infinite where the search has found nothing
        gradients[name] = loss_gradient(model, x, y)
    few = (
        {name: images[shown] for name, images in kind.items()}
        for kind in (gradients, in_box, in_l2)
    )
    plots.save(draw(networks, x[shown], y[shown], *few), output)

    print(f"{len(x)} test digits that all three classify correctly, each towards any other")
    rows = [(mnist.title(name), f"{eps:.4f}", f"{l2:.3f}") for name, (eps, l2) in sizes.items()]
    print(command.table(("", "mean smallest eps", "mean smallest |r|_2"), rows))
    return [output]


if __name__ == "__main__":
    command.run(main)
