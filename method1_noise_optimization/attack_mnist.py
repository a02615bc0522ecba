"""Find noise that turns each of 5,000 digits into another one, and save the results.

    python method1_noise_optimization/attack_mnist.py --model mlp --method sgd
    python method1_noise_optimization/attack_mnist.py --model cnn --method minimal --limit 500

The methods (attack.py): sgd, gradient descent on the noise with a regulariser; lbfgs, the
formulation of Szegedy et al. (2014); minimal, the smallest L2 noise.  Each digit gets a random
target other than its label, or all get the one of --target.  Digits that the model gets wrong
before the attack are left out and counted; so are, with --target, those that show it already.

reads   common/mnist.npz, common/weights/{model}.weights.h5, common/5k_samples.npz
writes  method1_noise_optimization/results_{model}_{method}.npz, for sgd
        results_{model}_sgd_{regularization}.npz (the format: common/results.py; `steps` holds
        how many steps each image took)
"""

import functools
import time

import numpy as np

from common import command, data, digit_attack, engine, files, models, results
from method1_noise_optimization import attack

# sgd refills its batch as digits finish, so that a worker gets several batches' worth at a time.
SGD_BATCHES = 5
# Settings that one method alone has: the results of the others do not name them.
OF_METHOD = {"regularization": "sgd", "learning_rate": "sgd", "starts": "minimal"}


def results_path(model, method, regularization):
    """Where the results of one attack lie."""
    name = f"results_{model}_{method}" + (f"_{regularization}" if method == "sgd" else "")
    return files.ROOT / "method1_noise_optimization" / f"{name}.npz"


def main(argv=None):
    parser = command.Parser(__doc__)
    models.add_model(parser, "mlp")
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
        "--target", type=target, default="random", help="the digit to be seen, or random"
    )
    data.add_samples(parser)
    parser.add_argument("--limit", type=command.positive_int, help="attack the first LIMIT digits")
    command.add_seed(parser, "of the random targets")
    command.add_output(parser, "the .npz file to write (default: see above)")
    engine.add_arguments(parser)
    args = parser.parse_args(argv)
    output = args.output or results_path(args.model, args.method, args.regularization)
    files.check_output(output)
    x, y, indices = data.load_samples(args.samples, args.limit)
    model = digit_attack.load(args.model)

    count = len(x)
    y_target = attack.random_targets(y, args.seed)
    if args.target != "random":
        y_target = np.full(count, args.target)
    right = models.classify(model, x) == y
    is_target = right & (y == y_target)
    kept = right & ~is_target
    if not kept.any():
        raise command.Failure(f"none of the {count} digits is left to attack: choose other ones")
    x, y, y_target = x[kept], y[kept], y_target[kept]
    indices = None if indices is None else indices[kept]

    how = {
        "method": args.method,
        "regularization": args.regularization,
        "learning_rate": args.learning_rate,
        "max_steps": args.max_steps or attack.MAX_STEPS[args.method],
        "starts": args.starts,
    }
    piece = attack.BATCH_SIZE[args.method] * (SGD_BATCHES if args.method == "sgd" else 1)
    # A single piece shows its own progress, unless it is another process that works on it.
    own_bar = len(x) <= piece and args.workers is None and args.cluster is None
    with engine.start(args.workers, args.cluster) as run:
        start = time.perf_counter()
        noises, steps = digit_attack.attack_digits(
            run,
            functools.partial(attack.search, **how, progress=own_bar),
            args.model,
            x,
            y_target,
            batch_size=piece,
            progress=not own_bar,
        )
        seconds = time.perf_counter() - start
    y_adv = attack.classify(model, x, noises)

    config = {
        "script": "method1_noise_optimization/attack_mnist.py",
        "model": args.model,
        **{
            name: value
            for name, value in how.items()
            if OF_METHOD.get(name, args.method) == args.method
        },
        "target": args.target,
        "limit": args.limit,
        "seed": args.seed,
        "left_out": int(count - len(x)),
    }
    results.save(
        output,
        xs=x,
        noises=noises,
        steps=steps,
        y_trues=y,
        y_preds=y,  # only digits classified correctly are here
        y_targets=y_target,
        y_preds_adversarial=y_adv,
        indices=indices,
        config=config,
    )
    title = f"{models.title(args.model)}, {args.method}"
    if args.method == "sgd":
        title += f", regularisation {args.regularization}"
    print(f"{title}, noise in pixel units")
    print(f"digits                       {count:10d}")
    print(f"left out: misclassified      {(~right).sum():10d}")
    if args.target != "random":
        print(f"left out: are a {args.target} already   {is_target.sum():10d}")
    print(attack.summary(noises, y_adv == y_target))
    print(f"steps, mean                  {steps.mean():10.1f}")
    print(f"steps, most                  {steps.max():10d}")
    print(f"seconds                      {seconds:10.2f}")
    print(f"images a second              {len(x) / seconds:10,.0f}")
    missed = (y_adv != y_target).sum()
    if missed:
        print(f"{missed} of {len(x)} digits did not reach their target; they are saved as they are")
    return [output]


def target(text):
    """An argument that is a digit, or random."""
    return text if text == "random" else command.digit(text)


if __name__ == "__main__":
    command.run(main)
