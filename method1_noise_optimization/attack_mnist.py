"""Find noise that turns each of 5,000 digits into another one, and save the results.

    python method1_noise_optimization/attack_mnist.py --model mlp --method sgd
    python method1_noise_optimization/attack_mnist.py --model cnn --method minimal --limit 500
    python method1_noise_optimization/attack_mnist.py --model mine.keras --samples mine.npz

The methods (attack.py): sgd, gradient descent on the noise with a regulariser; lbfgs, the
formulation of Szegedy et al. (2014); minimal, the smallest L2 noise.  Each digit gets a random
target other than its label, or all get the one of --target, or with `--target any` each is to
become the nearest other digit, whichever that is (minimal alone).  Digits that the model gets wrong
before the attack are left out and counted; so are, with --target, those that show it already.

A network of your own is a .keras file, and --samples its images and labels (common/README.md).

reads   common/mnist.npz, common/weights/{model}.weights.h5 or a .keras file, common/5k_samples.npz
writes  method1_noise_optimization/results_{model}_{method}.npz, for sgd
        results_{model}_sgd_{regularization}.npz (the format: common/results.py; `steps` holds
        how many steps each image took)
"""

import functools

import numpy as np

from common import command, data, files, results
from common.networks import mnist, own_model
from common.run import attack_run, engine
from method1_noise_optimization import attack

# Digits for a core at a time: those of sgd are worked on as others finish.
DIGITS = {"sgd": 1250, "lbfgs": 125, "minimal": 125}
# Settings that one method alone has: the results of the others do not name them.
OF_METHOD = {"regularization": "sgd", "learning_rate": "sgd", "starts": "minimal"}


def results_path(model, method, regularization):
    """Where the results of one attack lie."""
    name = f"results_{model}_{method}" + (f"_{regularization}" if method == "sgd" else "")
    return files.ROOT / "method1_noise_optimization" / f"{name}.npz"


def main(argv=None):
    parser = command.Parser(__doc__)
    own_model.add_model(parser, "mlp")
    parser.add_argument("--method", choices=attack.METHODS, default="sgd", help="which method")
    parser.add_argument(
        "--regularization",
        choices=attack.REGULARIZATIONS,
        default="l2",
        help="of sgd: nothing, mean |r|, or mean r²",
    )
    parser.add_argument(
        "--learning-rate",
        type=command.positive_float,
        default=attack.LEARNING_RATE,
        help="of sgd",
    )
    parser.add_argument(
        "--max-steps",
        type=command.positive_int,
        help="steps an image at most; for lbfgs, at each value of c, for minimal, at each start "
        "(default: "
        + ", ".join(f"{method} {steps}" for method, steps in attack.MAX_STEPS.items())
        + ")",
    )
    parser.add_argument(
        "--starts",
        type=command.positive_int,
        default=attack.STARTS,
        help="of minimal, at most: 1 is several times as fast and finds a little more noise",
    )
    parser.add_argument(
        "--target", default="random", help="the class to be seen, random, or any but the label"
    )
    data.add_samples(parser)
    command.add_count(parser, "--limit", "attack the first LIMIT digits (of a file: drawn)")
    command.add_seed(parser, "of the random targets")
    command.add_output(parser, "the .npz file to write (default: see above)")
    engine.add_arguments(parser)
    args = parser.parse_args(argv)
    target = args.target
    if target == "any" and args.method != "minimal":
        parser.error("--target any goes with --method minimal")
    name = own_model.stem(args.model)
    output = args.output or results_path(name, args.method, args.regularization)
    files.check_output(output, args, [mnist.weights_path(args.model), data.PATH])
    network, x, y, indices = attack_run.read(args, args.limit)
    if target == "any":
        y_target = None
    elif target == "random":
        y_target = attack.random_targets(y, args.seed, network.classes)
    else:
        target = network.target(target)
        y_target = np.full_like(y, target)

    how = {
        "method": args.method,
        "regularization": args.regularization,
        "learning_rate": args.learning_rate,
        "max_steps": args.max_steps or attack.MAX_STEPS[args.method],
        "starts": args.starts,
    }
    search = functools.partial(attack.search, targeted=y_target is not None, **how)
    batch_size = DIGITS[args.method]
    found = attack_run.attack_digits(
        args, network, search, x, y, indices, y_target, batch_size=batch_size
    )
    noises, steps, y_adv = found.x_adv - found.x, found.steps, found.y_adv
    reached = y_adv != found.y if y_target is None else y_adv == found.y_target

    config = {
        "script": "method1_noise_optimization/attack_mnist.py",
        **network.settings(),
        **{
            name: value
            for name, value in how.items()
            if OF_METHOD.get(name, args.method) == args.method
        },
        "target": target,
        "limit": args.limit,
        "seed": args.seed,
        "left_out": found.count - len(found.x),
    }
    results.save(
        output,
        xs=found.x,
        noises=noises,
        steps=steps,
        y_trues=found.y,
        y_preds=found.y,  # only digits classified correctly are here
        y_targets=found.y_target,
        y_preds_adversarial=y_adv,
        indices=found.indices,
        config=config,
    )
    title = f"{mnist.title(args.model)}, {args.method}"
    if args.method == "sgd":
        title += f", regularisation {args.regularization}"
    print(f"{title}, noise in pixel units")
    print(f"images                       {found.count:10d}")
    print(f"left out: misclassified      {found.misclassified:10d}")
    if isinstance(target, int):
        already = f"left out: are a {network.label(target)} already"
        print(f"{already:28} {found.are_target:10d}")
    print(attack.summary(noises, reached, *["another class"] * (y_target is None)))
    print(f"steps, mean                  {steps.mean():10.1f}")
    print(f"steps, most                  {steps.max():10d}")
    print(f"seconds                      {found.seconds:10.2f}")
    print(f"images a second              {len(found.x) / found.seconds:10,.0f}")
    if not reached.all():
        missed = f"{(~reached).sum()} of {len(reached)} images did not reach their target"
        print(f"{missed}; they are saved as they are")
    return [output]


if __name__ == "__main__":
    command.run(main)
