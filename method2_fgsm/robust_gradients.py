"""What robustness looks like: gradients and smallest noise of the CNN trained in three ways.

    python method2_fgsm/robust_gradients.py

For one test digit of each kind, the gradient of the loss by the pixels, for the CNN trained
plainly, on single sign steps, and on projected steps (adversarial_training.py).  The last one's
looks like parts of digits (Tsipras et al. 2019, "Robustness May Be at Odds with
Accuracy", figure 2).  Below, the adversarial digit with the smallest noise towards a random other
one: a veil for the plain network, strokes that a person reads for the robust one.

The table is over more digits, those that all three networks classify correctly: the smallest noise
towards the random digit in the L2 norm (method1_noise_optimization/minimal.py), and the smallest
epsilon towards it (smallest_eps.py, 500 steps).

reads   common/mnist.npz, common/weights/{cnn,cnn_adversarial,cnn_robust}.weights.h5
writes  img/robust_gradients.png
"""

import numpy as np

from common import command, data, files, models, plots
from common.command import Failure

NETWORKS = {
    "cnn": "trained plainly",
    "cnn_adversarial": "trained on sign steps",
    "cnn_robust": "trained on projected steps",
}
EPS_STEPS = 500


def loss_gradient(model, x, y):
    """The gradient of the cross entropy by the pixels: float32, like x, (n, 28, 28)."""
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = tf.cast(model(x, training=False), tf.float64)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
    return tape.gradient(loss, x).numpy()


def one_of_each(y):
    """The place of the first of each of the ten digits."""
    missing = sorted(set(range(data.CLASSES)) - set(y))
    if missing:
        raise Failure(f"no {missing[0]} among the digits: ask for more with --count")
    return [int(np.flatnonzero(y == digit)[0]) for digit in range(data.CLASSES)]


def draw(x, y, y_target, gradients, noises):
    """The digits, the three gradients, and below each network's adversarial digits."""
    rows = 1 + 2 * len(gradients)
    fig = plots.figure(
        12,
        1.25 * rows + 1.2,
        "CNN: loss gradient, and the smallest L2 noise towards another digit, "
        "by what it was trained on",
    )
    axes = fig.subplots(rows, len(x))
    for ax, image, label in zip(axes[0], x, y, strict=True):
        plots.digit(ax, image, str(label))
    axes[0, 0].set_ylabel("digit", fontsize=9)
    for line, (name, images) in zip(axes[1:], gradients.items(), strict=False):
        for ax, image in zip(line, images, strict=True):
            # The sizes differ by orders of magnitude; what counts is the pattern.
            plots.noise(ax, image, np.quantile(np.abs(image), 0.995) or 1)
        line[0].set_ylabel(f"gradient,\n{NETWORKS[name]}", fontsize=9)
    for line, (name, noise) in zip(axes[1 + len(gradients) :], noises.items(), strict=True):
        for ax, image, r, target in zip(line, x, noise, y_target, strict=True):
            plots.digit(ax, np.clip(image + r, 0, 1), f"→ {target}, |r|₂ {np.linalg.norm(r):.1f}")
            ax.title.set_fontsize(9)
        line[0].set_ylabel(f"smallest noise,\n{NETWORKS[name]}", fontsize=9)
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--count", type=command.positive_int, default=100, help="digits of the table"
    )
    command.add_seed(parser, "the targets")
    command.add_output(parser, "the figure to write", files.IMG / "robust_gradients.png")
    args = parser.parse_args(argv)
    output = files.check_output(args.output)
    networks = {name: models.load(name) for name in NETWORKS}
    x, y = data.load("test")

    from method1_noise_optimization import attack
    from method2_fgsm.smallest_eps import smallest_eps

    right = np.all([models.classify(model, x) == y for model in networks.values()], axis=0)
    chosen = np.flatnonzero(right)[: args.count]
    x, y = x[chosen], y[chosen]
    shown = one_of_each(y)
    y_target = attack.random_targets(y, args.seed)
    noises, eps, gradients = {}, {}, {}
    for name, model in networks.items():
        noises[name] = attack.find_noise(model, x, y_target, method="minimal", progress=True)
        eps[name], _ = smallest_eps(model, x, y_target, steps=EPS_STEPS)
        gradients[name] = loss_gradient(model, x[shown], y[shown])
    few = {name: noise[shown] for name, noise in noises.items()}
    plots.save(draw(x[shown], y[shown], y_target[shown], gradients, few), output)

    print(f"{len(x)} test digits that all three classify correctly, each towards a random digit")
    print(f"{'CNN':30}{'mean |r|_2':>12}{'mean eps':>12}")
    for name, kind in NETWORKS.items():
        l2 = np.linalg.norm(noises[name].reshape(len(x), -1), axis=1).mean()
        print(f"{kind:30}{l2:12.3f}{eps[name].mean():12.4f}")
    print(f"wrote {files.show(output)}")
    return [output]


if __name__ == "__main__":
    command.run(main)
