"""Adversarial training: teach a network the fast gradient sign attacks on itself.

    python method2_fgsm/adversarial_training.py
    python method2_fgsm/adversarial_training.py --model mlp --eps 0.1 --alpha 0.7

The network is trained from scratch on (Goodfellow et al. 2015, section 6)

    alpha * J(x, y) + (1 - alpha) * J(clip(x + eps * sign(grad J(x, y))), y)

with the sign taken anew in every step from the weights of that moment, and then set beside the
plainly trained one.  (The paper does not clip to [0, 1]; here adversarial images are images.)
Optimizer, batches and order of the digits are those of common/train_mnist.py.

The table says more than the paper's, on purpose: a network trained on single sign steps learns to
withstand single sign steps.  Projected gradient descent, many small steps within the same
epsilon (method2_fgsm/pgd.py), shows what is left of that against an attack that looks twice.

Afterwards every script with --model knows the network as {model}_adversarial.

reads   common/mnist.npz, common/weights/{model}.weights.h5 (the plain network)
writes  common/weights/{model}_adversarial.weights.h5, {model}_adversarial_predictions.csv beside
        it, img/confusion_{model}_adversarial.png, img/adversarial_training.png (for other models
        than the CNN: img/adversarial_training_{model}.png)
"""

import argparse
import functools
import time

import numpy as np

from common import command, data, files, models, plots, training

EPOCHS = {"softmax": 10, "mlp": 10, "cnn": 4}
# Attacked network, and whose gradient the examples are made with, in the order of the legend.
PAIRS = (
    ("plain", "plain"),
    ("adversarial", "adversarial"),
    ("adversarial", "plain"),
    ("plain", "adversarial"),
)
CURVE = np.round(np.arange(0, 0.301, 0.05), 3)
PGD_STEPS = 40
FILTERS = 32
# Goodfellow et al. (2015), section 6 (and 4): maxout network, plain and adversarially trained.
PUBLISHED = {
    "clean error": (0.0114, 0.00782),
    "error, fast gradient sign": (0.894, 0.179),
    "  confidence when wrong": (0.976, 0.814),
    "error, transferred": (0.409, 0.196),
}


def compare(networks, x, y, eps):
    """Error rates and confidences of two networks along eps, on own and on the other's examples.

    networks: a dict of the two by name.  Returns a dict with the keys `PAIRS` of (2, k) arrays
    (error, confidence when wrong) for eps (k,).
    """
    from tqdm import tqdm

    from method2_fgsm.error_rates import error_rates

    return {
        (attacked, source): error_rates(networks[attacked], x, y, eps, source=networks[source])
        for attacked, source in tqdm(PAIRS, disable=None, unit="curve")
    }


def first_layer(model, count=FILTERS):
    """The first layer's weights as images (count, h, w): a unit of a dense layer is 28 x 28."""
    kernel = model.get_weights()[0]
    if kernel.ndim == 2:
        return kernel.T.reshape(-1, 28, 28)[:count]
    return kernel[:, :, 0].transpose(2, 0, 1)[:count]


def draw(curves, eps, filters, title):
    """Accuracy against epsilon, and below it the first layer before and after."""
    count = len(filters["plain"])
    columns = min(8, count // 2)
    rows = -(-count // columns)
    heights = 5.2, 1.3 + rows * 5.4 / columns
    fig = plots.figure(11, sum(heights) + 0.7, title)
    above, below = fig.subfigures(2, 1, height_ratios=heights)
    ax = above.add_subplot()
    for (attacked, source), (errors, _) in curves.items():
        own = attacked == source
        ax.plot(
            eps,
            100 * (1 - errors),
            color=plots.COLOURS[0 if attacked == "plain" else 2],
            linestyle="-" if own else "--",
            marker="o" if own else "s",
            label=f"{attacked} training, examples made against "
            + ("itself" if own else f"the {source}ly trained"),
        )
    ax.set(xlabel="ε (pixel units)", ylabel="accuracy (%)", ylim=(-2, 102))
    above.legend(loc="outside lower center", ncols=2)

    limit = max(np.quantile(np.abs(images), 0.995) for images in filters.values())
    for part, (name, images) in zip(below.subfigures(1, 2), filters.items(), strict=True):
        part.suptitle(f"first layer, {name} training")
        axes = part.subplots(rows, columns)
        for filter_ax, image in zip(axes.flat, images, strict=True):
            drawn = plots.noise(filter_ax, image, limit)
        part.colorbar(drawn, ax=axes, location="bottom", shrink=0.7, aspect=30, label="weight")
    return fig


def share(text):
    """An argument from 0 to 1."""
    try:
        return command.pixel_size(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1") from error


def print_table(curves, at, pgd_errors):
    """Errors of both networks at the epsilon number `at` of the curves, beside the paper's."""
    own = ("plain", "plain"), ("adversarial", "adversarial")
    transferred = ("plain", "adversarial"), ("adversarial", "plain")
    table = {
        "clean error": [curves[pair][0, 0] for pair in own],
        "error, fast gradient sign": [curves[pair][0, at] for pair in own],
        "  confidence when wrong": [curves[pair][1, at] for pair in own],
        "error, transferred": [curves[pair][0, at] for pair in transferred],
        f"error, {PGD_STEPS} projected steps": pgd_errors,
    }
    print(f"{'':28}{'plain':>10}{'adversarial':>14}    published (maxout, eps 0.25)")
    for row, (plain, adversarial) in table.items():
        published = "".join(f"{number:14.2%}" for number in PUBLISHED.get(row, ()))
        print(f"{row:28}{plain:10.2%}{adversarial:14.2%}    {published}")


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--model", choices=models.NAMES, default="cnn", help="which classifier")
    parser.add_argument(
        "--eps", type=command.pixel_size, default=0.25, help="size of the step in pixel units"
    )
    parser.add_argument(
        "--alpha", type=share, default=0.5, help="weight of the unchanged images, from 0 to 1"
    )
    training.add_arguments(
        parser, epochs=None, batch_size=None, learning_rate=training.LEARNING_RATE
    )
    command.add_output(
        parser,
        "the figure to write (default: img/adversarial_training.png, for other models than "
        "the CNN with the model's name added)",
    )
    args = parser.parse_args(argv)
    epochs = args.epochs or EPOCHS[args.model]
    suffix = "" if args.model == "cnn" else f"_{args.model}"
    output = args.output or files.IMG / f"adversarial_training{suffix}.png"
    name = f"{args.model}{models.ADVERSARIAL}"
    for path in (output, *training.outputs(name)):
        files.check_output(path)

    plain = models.load(args.model)

    from method2_fgsm.adversarial_loss import AdversarialModel
    from method2_fgsm.pgd import pgd

    start = time.perf_counter()
    adversarial = training.fit(
        name,
        training.cosine_adam(args.learning_rate),
        epochs=epochs,
        batch_size=args.batch_size or training.BATCH_SIZE.get(args.model, 100),
        seed=args.seed,
        trainer=functools.partial(AdversarialModel, eps=args.eps, alpha=args.alpha),
    )
    seconds = time.perf_counter() - start
    written = training.report(name, adversarial)

    x, y = data.load("test")
    networks = {"plain": plain, "adversarial": adversarial}
    eps = np.unique(np.append(CURVE, args.eps))
    curves = compare(networks, x, y, eps)
    pgd_errors = []
    for model in networks.values():
        x_pgd = pgd(model, x, y, args.eps, steps=PGD_STEPS, seed=args.seed)
        pgd_errors.append((models.classify(model, x_pgd) != y).mean())

    title = (
        f"{models.TITLES[args.model]}, trained plainly and on α J(x) + (1 − α) J(x + ε sign), "
        f"ε = {args.eps:g}, α = {args.alpha:g}:\naccuracy under the fast gradient sign, "
        "10,000 test digits"
    )
    filters = {kind: first_layer(model) for kind, model in networks.items()}
    plots.save(draw(curves, eps, filters, title), output)

    print(
        f"{models.TITLES[args.model]}, eps {args.eps:g}, alpha {args.alpha:g}: 10,000 test digits"
    )
    print_table(curves, int(np.flatnonzero(eps == args.eps)[0]), pgd_errors)
    print(f"seconds an epoch {seconds / epochs:.1f}")
    print(f"wrote {files.show(output)}")
    return [*written, output]


if __name__ == "__main__":
    command.run(main)
