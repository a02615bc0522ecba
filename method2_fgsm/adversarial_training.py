"""Adversarial training: teach a network the attacks on itself.

    python method2_fgsm/adversarial_training.py                   single sign steps: an illusion
    python method2_fgsm/adversarial_training.py --attack pgd      projected steps: what holds
    python method2_fgsm/adversarial_training.py --attack random-start    one of them: it collapses
    python method2_fgsm/adversarial_training.py --attack bounds   no attack: what can be proven
    python method2_fgsm/adversarial_training.py --model mlp --eps 0.1 --alpha 0.7

sign trains from scratch on alpha * J(x, y) + (1 - alpha) * J(x_adv, y), where x_adv is one sign
step by the weights of the moment (Goodfellow et al. 2015, section 6); pgd on J(x_adv, y) alone,
where x_adv comes from --steps projected steps (Madry et al. 2018); random-start on one step of
1.25 * eps within eps (Wong et al. 2020); bounds on interval bounds of what any change within eps
can do (Gowal et al. 2019).  The last three hold out the last 1,000 training digits, print after
each epoch how many of these withstand, and keep the best epoch's weights.

The network is then set beside the plainly trained one, and every script with --model knows it:
sign trains {model}_adversarial, pgd {model}_robust, random-start {model}_random_start, bounds
mlp_certified or strided_certified, for which there is no figure.

reads   common/mnist.npz, common/weights/{model}.weights.h5 (the plain network; not for bounds)
writes  common/weights/{trained}.weights.h5, {trained}_predictions.csv beside it,
        img/confusion_{trained}.png, and a figure: img/adversarial_training.png for cnn_adversarial,
        img/adversarial_training_{model}.png for other models, img/robust_training_{model}.png and
        img/random_start_training_{model}.png for pgd and random-start
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
ALPHA, STEPS = 0.5, 5
# The largest learning rate.
PEAK = {"sign": 2e-3, "random-start": 3e-3, "pgd": 2e-3, "bounds": 1e-3}
STRIDED_PEAK = 1.5e-3
# More, smaller batches take hardly longer when most of the time goes into the attack.
BATCH_SIZE = {"pgd": 64, "bounds": 128}


def train(name, attack, eps, *, alpha, steps, **settings):
    """A new network trained on one of the attacks.  settings: of the training."""
    from method2_fgsm.robust import adversarial_loss, projected_training

    if attack == "sign":
        loss = functools.partial(adversarial_loss.sign_loss, eps=eps, alpha=alpha)
        return training.fit(
            name,
            training.cosine_adam(settings.pop("learning_rate")),
            trainer=functools.partial(adversarial_loss.AdversarialModel, loss=loss),
            **settings,
        )
    return projected_training.fit(name, attack, eps, steps, **settings)


def arguments(argv):
    """The command line, with the defaults that depend on the model and the attack filled in."""
    parser = command.Parser(__doc__)
    models = "which classifier (default: strided for bounds, otherwise cnn)"
    parser.add_argument("--model", choices=(*mnist.NAMES, "strided"), help=models)
    attacks = tuple(mnist.SUFFIXES)
    parser.add_argument("--attack", choices=attacks, default="sign", help="what to train on")
    eps = "size of the step, or largest change (default: 0.25 for sign, 0.3 for CNNs, else 0.1)"
    command.option(parser, "--eps", command.pixel_size, None, eps)
    share = command.number(0, 1, "between 0 and 1")
    alpha = f"for sign: weight of the unchanged images, from 0 to 1 (default: {ALPHA})"
    command.option(parser, "--alpha", share, None, alpha)
    command.add_count(parser, "--steps", f"for pgd: how many (default: {STEPS})")
    training.add_arguments(parser, None, None, None)
    command.add_output(parser, "the figure to write (default: see above)")
    args = parser.parse_args(argv)
    sign, bounds = args.attack == "sign", args.attack == "bounds"
    args.model = args.model or ("strided" if bounds else "cnn")
    if args.model not in EPOCHS[args.attack]:
        parser.error(f"--attack {args.attack} is not for --model {args.model}")
    if bounds and args.output:
        parser.error("--output names a figure, and --attack bounds draws none")
    if args.alpha is not None and not sign:
        parser.error("--alpha goes with --attack sign")
    if args.steps is not None and args.attack != "pgd":
        parser.error("--steps goes with --attack pgd")
    if args.eps is None:
        args.eps = SIGN_EPS if sign else mnist.trained_eps(args.model)
    args.alpha = ALPHA if args.alpha is None else args.alpha
    args.steps = args.steps or STEPS
    args.epochs = args.epochs or EPOCHS[args.attack][args.model]
    usual = BATCH_SIZE.get(args.attack, training.BATCH_SIZE.get(args.model, 100))
    args.batch_size = args.batch_size or usual
    peak = STRIDED_PEAK if args.model == "strided" else PEAK[args.attack]
    args.learning_rate = args.learning_rate or peak
    if not bounds:
        kind = {"sign": "adversarial", "pgd": "robust", "random-start": "random_start"}[args.attack]
        model = "" if sign and args.model == "cnn" else f"_{args.model}"
        args.output = args.output or files.IMG / f"{kind}_training{model}.png"
    return args


def train_on_bounds(name, eps, **settings):
    """Train and save a network, print what is proven about it, and return the files written."""
    from method2_fgsm.robust import bounds, certified_training
    from method2_fgsm.robust.plain_and_adversarial import PGD_STEPS, pgd_errors

    model = certified_training.fit(name, eps, **settings)
    written = training.report(name, model)
    x, y = data.load("test")
    (projected,) = 1 - pgd_errors(model, x, y, [eps], settings["seed"])
    print(f"{mnist.title(name)}, eps = {eps:g}: {len(x):,} test digits")
    right, proven = (mnist.classify(model, x) == y).mean(), bounds.proven(model, x, y, eps).mean()
    rows = ("right", right), (f"under {PGD_STEPS} projected steps", projected), ("proven", proven)
    print(command.table(None, [(name, f"{share:.2%}") for name, share in rows]))
    return written


def main(argv=None):
    args = arguments(argv)
    name = f"{args.model}{mnist.SUFFIXES[args.attack]}"
    for path in training.outputs(name):
        files.check_output(path, args)
    settings = {
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "seed": args.seed,
    }
    if args.attack == "bounds":
        return train_on_bounds(name, args.eps, **settings)
    plots.check_output(args.output)
    plain = mnist.load(args.model)

    start = time.perf_counter()
    adversarial = train(name, args.attack, args.eps, alpha=args.alpha, steps=args.steps, **settings)
    seconds = time.perf_counter() - start
    written = training.report(name, adversarial)

    from method2_fgsm.robust import plain_and_adversarial

    trained_on = {
        "sign": f"α J(x) + (1 − α) J(x + ε sign), ε = {args.eps:g}, α = {args.alpha:g}",
        "pgd": f"{args.steps} projected sign steps, ε = {args.eps:g}",
        "random-start": f"one sign step from a random start, ε = {args.eps:g}",
    }[args.attack]
    x, y = data.load("test")
    figure, table = plain_and_adversarial.compare(
        {"plain": plain, "adversarial": adversarial},
        x,
        y,
        args.eps,
        seed=args.seed,
        title=f"{mnist.TITLES[args.model]}, trained plainly and on {trained_on}",
        published=args.attack == "sign",
    )
    plots.save(figure, args.output)
    heading = f"{mnist.title(name)}, {trained_on}: {len(x):,} test digits"
    print(heading.replace("α", "alpha").replace("ε", "eps"))
    print(table)
    print(f"seconds an epoch {seconds / args.epochs:.1f}")
    return [*written, args.output]


if __name__ == "__main__":
    command.run(main)
