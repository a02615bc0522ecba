"""Train a network on attacks on itself, or on bounds of what any attack can do.

    python method2_fgsm/adversarial_training.py
    python method2_fgsm/adversarial_training.py --attack pgd --model mlp

--attack sign trains on images and their sign steps: an illusion; random-start
on one step from a random start: it collapses; pgd on projected steps: what
holds; bounds on no attack, but on what can be proven (method2_fgsm/README.md).

reads   common/mnist.npz, common/weights/{model}.weights.h5 (but for bounds)
writes  common/weights/{trained}.weights.h5 and {trained}_predictions.csv,
        img/confusion_{trained}.png, and (but for bounds) a figure beside the
        plain network, img/…_training_{model}.png; other settings than the
        default ones become part of all names, as in cnn_robust_seed1
"""

import functools
import time

from common import command, data, files, plots
from common.networks import mnist, training

PROJECTED = {"softmax": 10, "mlp": 20, "cnn": 5}
EPOCHS = {
    "sign": {"softmax": 10, "mlp": 10, "cnn": 4},
    "pgd": PROJECTED,
    "random-start": PROJECTED,
    "bounds": {"mlp": 40, "strided": 24},
}
SIGN_EPS = 0.25
# The largest learning rate.
PEAK = {"sign": 2e-3, "random-start": 3e-3, "pgd": 2e-3, "bounds": 2e-3}
STRIDED_PEAK = 1.5e-3
# More, smaller batches take hardly longer when most of the time goes into the attack.
BATCH_SIZE = {"pgd": 64, "bounds": 128}


def train(name, attack, eps, alpha, steps, **settings):
    """A new network trained on one of the attacks.  settings: of the training."""
    from method2_fgsm.robust import adversarial_loss, certified_training, projected_training

    if attack == "bounds":
        return certified_training.fit(name, eps, **settings)
    if attack != "sign":
        return projected_training.fit(name, attack, eps, steps, **settings)
    loss = functools.partial(adversarial_loss.sign_loss, eps=eps, alpha=alpha)
    return training.fit(
        name,
        training.cosine_adam(settings.pop("learning_rate")),
        trainer=functools.partial(adversarial_loss.AdversarialModel, loss=loss),
        **settings,
    )


def arguments(argv):
    """The command line, with the defaults that depend on the model and the attack filled in; `name`
    is that of the trained network."""
    parser = command.Parser(__doc__)
    models = "classifier (default: strided for bounds, else cnn)"
    parser.add_argument("--model", choices=(*mnist.NAMES, "strided"), help=models)
    attacks = tuple(mnist.SUFFIXES)
    parser.add_argument("--attack", choices=attacks, default="sign", help="what to train on")
    eps = "size of the step, or largest change (default: 0.25 for sign, 0.3 for CNNs, else 0.1)"
    command.option(parser, "--eps", command.pixel_size, None, eps)
    share = command.number(0, 1, "between 0 and 1")
    alpha = "for sign: weight of the unchanged images, 0 to 1 (default: 0.5)"
    command.option(parser, "--alpha", share, None, alpha)
    command.add_count(parser, "--steps", "for pgd: how many (default: 5)")
    training.add_arguments(parser, None, None, None)
    command.add_output(parser, "the figure to write (default: see above)")
    args = parser.parse_args(argv)

    attack, bounds = args.attack, args.attack == "bounds"
    args.model = model = args.model or ("strided" if bounds else "cnn")
    if model not in EPOCHS[attack]:
        parser.error(f"--attack {attack} is not for --model {model}")
    if bounds and args.output:
        parser.error("--output names a figure, and --attack bounds draws none")
    for name, its in ("alpha", "sign"), ("steps", "pgd"):
        if getattr(args, name) is not None and attack != its:
            parser.error(f"--{name} goes with --attack {its}")
    of_model = "" if (attack, model) == ("sign", "cnn") else f"_{model}"
    defaults = {
        "eps": SIGN_EPS if attack == "sign" else mnist.trained_eps(model),
        "alpha": 0.5,
        "steps": 5,
        "epochs": EPOCHS[attack][model],
        "batch_size": BATCH_SIZE.get(attack, training.BATCH_SIZE.get(model, 100)),
        "learning_rate": STRIDED_PEAK if model == "strided" else PEAK[attack],
        "seed": 0,
    }
    changed = {}
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
        elif getattr(args, name) != value:
            changed[name.replace("_", "-")] = getattr(args, name)
    args.name = mnist.variant(f"{model}{mnist.SUFFIXES[attack]}", changed)
    if args.output is None:
        figure = mnist.variant(f"{mnist.SUFFIXES[attack][1:]}_training{of_model}", changed)
        args.output = files.IMG / f"{figure}.png"
    return args


def print_proven(name, model, eps, seed):
    """How many test digits a network trained on bounds gets right, withstands and is proven for."""
    from method2_fgsm.robust import bounds
    from method2_fgsm.robust.plain_and_adversarial import PGD_STEPS, pgd_accuracy

    x, y = data.load("test")
    (projected,) = pgd_accuracy(model, x, y, [eps], seed)
    print(f"{mnist.title(name)}, eps = {eps:g}: {len(x):,} test digits")
    right, proven = (mnist.classify(model, x) == y).mean(), bounds.proven(model, x, y, eps).mean()
    rows = {"accuracy": right, f"under {PGD_STEPS} projected steps": projected, "proven": proven}
    print(command.table(None, [(name, f"{share:.2%}") for name, share in rows.items()]))


def main(argv=None):
    args = arguments(argv)
    name, bounds = args.name, args.attack == "bounds"
    for path in training.outputs(name):
        files.check_output(path, args)
    if not bounds:
        plots.check_output(args.output)
        plain = mnist.load(args.model)

    settings = ("epochs", "batch_size", "learning_rate", "seed")
    settings = {setting: getattr(args, setting) for setting in settings}
    start = time.perf_counter()
    trained = train(name, args.attack, args.eps, args.alpha, args.steps, **settings)
    seconds = time.perf_counter() - start
    written = training.report(name, trained)
    if bounds:
        print_proven(name, trained, args.eps, args.seed)
        return written

    from method2_fgsm.robust import plain_and_adversarial

    trained_on = {
        "sign": f"sign steps, α J(x) + (1 − α) J(x + ε sign), ε = {args.eps:g}, α = {args.alpha:g}",
        "pgd": f"{args.steps} projected steps, ε = {args.eps:g}",
        "random-start": f"one sign step from a random start, ε = {args.eps:g}",
    }[args.attack]
    heading = f"{mnist.TITLES[args.model]}, trained plainly and on {trained_on}"
    x, y = data.load("test")
    figure, table = plain_and_adversarial.compare(
        {"trained plainly": plain, mnist.TITLES_TRAINED[args.attack]: trained},
        x,
        y,
        args.eps,
        seed=args.seed,
        title=heading,
        published=args.attack == "sign",
    )
    plots.save(figure, args.output)
    print(f"{heading}: {len(x):,} test digits".replace("α", "alpha").replace("ε", "eps"))
    print(table)
    print(f"seconds an epoch {seconds / args.epochs:.1f}")
    return [*written, args.output]


if __name__ == "__main__":
    command.run(main)
