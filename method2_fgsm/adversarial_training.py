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

--strategy mirrored trains on all GPUs of this machine, multiworker on several machines with the
same command; --batch-size counts the digits of all replicas together.  Both run a loop of their
own (method2_fgsm/distributed_training.py) with another order of the digits than Keras's, keep
checkpoints, and go on from the last complete epoch when they are started again.  The first
worker alone looks at the network and writes.

Afterwards every script with --model knows the network as {model}_adversarial.

reads   common/mnist.npz, common/weights/{model}.weights.h5 (the plain network)
writes  common/weights/{model}_adversarial.weights.h5, {model}_adversarial_predictions.csv beside
        it, img/confusion_{model}_adversarial.png, img/adversarial_training.png (for other models
        than the CNN: img/adversarial_training_{model}.png)
        with --strategy, while it runs, common/weights/{model}_adversarial_checkpoints
"""

import time
from pathlib import Path

import numpy as np

from common import command, data, distribution, files, models, plots, train_mnist, training
from method2_fgsm.accuracy_vs_epsilon import along_eps

EPOCHS = {"softmax": 10, "mlp": 10, "cnn": 4}
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


def compare(plain, adversarial, x, y, eps):
    """Error rates and confidences of two models along eps, on own and on the other's examples.

    Returns a dict of (2, k) arrays (error, confidence when wrong) for eps (k,), with keys
    (attacked model, source of the gradient), both among "plain" and "adversarial".
    """
    from tqdm import tqdm

    both = {"plain": plain, "adversarial": adversarial}
    pairs = [(attacked, source) for source in both for attacked in both]
    pairs.sort(key=lambda pair: pair[0] != pair[1])  # in the legend, own examples come first
    return {
        (attacked, source): along_eps(both[attacked], x, y, eps, source=both[source])
        for attacked, source in tqdm(pairs, disable=None, unit="curve")
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
        parser, epochs=None, batch_size=None, learning_rate=train_mnist.LEARNING_RATE
    )
    distribution.add_argument(parser)
    parser.add_argument(
        "--output",
        type=Path,
        help="the figure to write (default: img/adversarial_training.png, for other models than "
        "the CNN with the model's name added)",
    )
    args = parser.parse_args(argv)
    suffix = "" if args.model == "cnn" else f"_{args.model}"
    worker = distribution.worker(args.strategy)
    output = args.output or files.IMG / f"adversarial_training{suffix}.png"
    name = f"{args.model}{models.ADVERSARIAL}"
    for path in () if worker.rank else (output, *training.outputs(name)):
        files.check_output(path)
    settings = {
        "optimizer": train_mnist.cosine_adam(args.learning_rate),
        "epochs": args.epochs or EPOCHS[args.model],
        "batch_size": args.batch_size or train_mnist.BATCH_SIZE.get(args.model, 100),
        "seed": args.seed,
    }
    if args.strategy == "none":
        plain = models.load(args.model)

        from method2_fgsm.adversarial_loss import AdversarialModel

        start = time.perf_counter()
        adversarial = training.fit(
            name, trainer=lambda model: AdversarialModel(model, args.eps, args.alpha), **settings
        )
        epochs = settings["epochs"]
    else:
        if not (worker.rank or models.weights_path(args.model).exists()):
            models.load(args.model)  # says so, before the others are waited for
        # Before anything else of TensorFlow is used.
        strategy = distribution.strategy(args.strategy)

        from method2_fgsm import distributed_training

        start = time.perf_counter()
        adversarial, epochs = distributed_training.fit(
            name, strategy, worker, eps=args.eps, alpha=args.alpha, **settings
        )
        if worker.rank:
            print(f"{worker} is done; worker 1 writes weights and figures")
            return []
        plain = models.load(args.model)
    seconds = time.perf_counter() - start
    written = training.report(name, adversarial)
    if args.strategy != "none":
        distributed_training.remove_checkpoints(name)

    from method2_fgsm import pgd

    x, y = data.load("test")
    eps = np.unique(np.append(CURVE, args.eps))
    curves = compare(plain, adversarial, x, y, eps)
    filters = {"plain": first_layer(plain), "adversarial": first_layer(adversarial)}
    title = (
        f"{models.TITLES[args.model]}, trained plainly and on α J(x) + (1 − α) J(x + ε sign), "
        f"ε = {args.eps:g}, α = {args.alpha:g}:\naccuracy under the fast gradient sign, "
        "10,000 test digits"
    )
    plots.save(draw(curves, eps, filters, title), output)

    at = int(np.flatnonzero(eps == args.eps)[0])
    table = {"clean error": [], "error, fast gradient sign": [], "  confidence when wrong": []}
    table |= {"error, transferred": [], f"error, {PGD_STEPS} projected steps": []}
    for model, attacked, other in (
        (plain, "plain", "adversarial"),
        (adversarial, "adversarial", "plain"),
    ):
        x_pgd = pgd.pgd(model, x, y, args.eps, steps=PGD_STEPS, seed=args.seed)
        own = curves[attacked, attacked]
        numbers = (
            own[0, 0],
            own[0, at],
            own[1, at],
            curves[attacked, other][0, at],
            (models.classify(model, x_pgd) != y).mean(),
        )
        for row, number in zip(table.values(), numbers, strict=True):
            row.append(number)

    print(
        f"{models.TITLES[args.model]}, eps {args.eps:g}, alpha {args.alpha:g}: 10,000 test digits"
    )
    print(f"{'':28}{'plain':>10}{'adversarial':>14}    published (maxout, eps 0.25)")
    for row, (before, after) in table.items():
        published = PUBLISHED.get(row)
        beside = "".join(f"{number:14.2%}" for number in published) if published else ""
        print(f"{row:28}{before:10.2%}{after:14.2%}    {beside}")
    print(f"seconds an epoch {seconds / max(epochs, 1):.1f}")
    print(f"wrote {files.show(output)}")
    return [*written, output]


def share(text):
    """An argument from 0 to 1."""
    import argparse

    try:
        return command.pixel_size(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1") from error


if __name__ == "__main__":
    command.run(main)
