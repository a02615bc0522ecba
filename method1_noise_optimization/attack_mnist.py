"""Find noise that turns each of 5,000 digits into another one, and save the results.

    python method1_noise_optimization/attack_mnist.py --model mlp --method sgd
    python method1_noise_optimization/attack_mnist.py --model cnn --method minimal --limit 500

The methods (attack.py): sgd, gradient descent on the noise with a regulariser; lbfgs, the
formulation of Szegedy et al. (2014); minimal, the smallest L2 noise.  Each digit gets a random
target other than its label, or all get the one of --target.  Digits that the model gets wrong
before the attack are left out and counted; so are, with --target, those that show it already.

--strategy mirrored splits the digits over all GPUs of this machine, multiworker over several
machines with the same command (common/distribution.py, common/shards.py).

reads   common/mnist.npz, common/weights/{model}.weights.h5, common/5k_samples.npz
writes  method1_noise_optimization/results_{model}_{method}.npz, for sgd
        results_{model}_sgd_{regularization}.npz (the format: common/results.py; `steps` holds
        how many steps each image took); with several workers, until all are done,
        results_*.worker-*-of-*.npz
"""

import time
from pathlib import Path

import numpy as np

from common import command, data, distribution, files, models, results, shards
from method1_noise_optimization import attack


def results_path(model, method, regularization):
    """Where the results of one attack lie."""
    name = f"results_{model}_{method}" + (f"_{regularization}" if method == "sgd" else "")
    return files.ROOT / "method1_noise_optimization" / f"{name}.npz"


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--model", type=models.argument, default="mlp", help="which classifier")
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
        help="steps an image at most; for lbfgs, at each value of c (default: "
        + ", ".join(f"{method} {steps}" for method, steps in attack.MAX_STEPS.items())
        + ")",
    )
    parser.add_argument(
        "--target", type=target, default="random", help="the digit to be seen, or random"
    )
    parser.add_argument(
        "--samples", type=Path, default=data.SAMPLES, help="the digits, from generate_5k.py"
    )
    parser.add_argument("--limit", type=command.positive_int, help="attack the first LIMIT digits")
    parser.add_argument("--seed", type=command.seed, default=0, help="of the random targets")
    parser.add_argument("--output", type=Path, help="the .npz file to write (default: see above)")
    distribution.add_argument(parser)
    shards.add_arguments(parser)
    args = shards.parse(parser, argv)
    output = args.output or results_path(args.model, args.method, args.regularization)
    worker = distribution.worker(args.strategy)
    shards.check_output(output, worker)
    x, y, indices = (array[: args.limit] for array in data.load_samples(args.samples))
    model = models.load(args.model)

    count = len(x)
    y_target = attack.random_targets(y, args.seed)
    if args.target != "random":
        y_target = np.full(count, args.target)
    right = models.classify(model, x) == y
    there = right & (y == y_target)
    kept = right & ~there
    if not kept.any():
        raise command.Failure(f"none of the {count} digits is left to attack: choose other ones")
    x, y, y_target, indices = x[kept], y[kept], y_target[kept], indices[kept]

    how = {
        "method": args.method,
        "regularization": args.regularization,
        "learning_rate": args.learning_rate,
        "max_steps": args.max_steps or attack.MAX_STEPS[args.method],
    }
    digits = {
        "xs": x,
        "y_trues": y,
        "y_preds": y,  # only digits classified correctly are here
        "y_targets": y_target,
        "indices": indices,
    }
    share = distribution.sharing(model, args.strategy)

    def find(digits):
        x, y_target = digits["xs"], digits["y_targets"]
        start = time.perf_counter()
        noises, steps = share(
            lambda model, x, y_target: attack.search(model, x, y_target, **how, progress=True),
            x,
            y_target,
        )
        seconds = time.perf_counter() - start
        y_adv = attack.classify(model, x, noises)
        return {"noises": noises, "steps": steps, "y_preds_adversarial": y_adv}, seconds

    config = {
        "script": "method1_noise_optimization/attack_mnist.py",
        "model": args.model,
        **{
            name: value
            for name, value in how.items()
            if args.method == "sgd" or name not in ("regularization", "learning_rate")
        },
        "target": args.target,
        "limit": args.limit,
        "seed": args.seed,
        "left_out": int(count - len(x)),
    }
    # A worker's batches are those of a single process, so that its results are too.  Not so for
    # sgd, whose batch refills: there each digit goes its own way, whatever the batch.
    batch = attack.BATCH_SIZE[args.method]
    block = 1 if args.method == "sgd" else batch
    merged = shards.attack(
        worker, output, digits, config, find, model=args.model, block=block, piece=batch, args=args
    )
    if merged is None:
        return []
    found, seconds = merged
    results.save(output, **digits, **found, config=config)
    shards.remove(output, worker)
    noises, steps, y_adv = (found[key] for key in ("noises", "steps", "y_preds_adversarial"))
    title = f"{models.title(args.model)}, {args.method}"
    if args.method == "sgd":
        title += f", regularisation {args.regularization}"
    print(f"{title}, noise in pixel units")
    print(f"digits                       {count:10d}")
    print(f"left out: misclassified      {(~right).sum():10d}")
    if args.target != "random":
        print(f"left out: are a {args.target} already   {there.sum():10d}")
    print(attack.summary(noises, y_adv == y_target))
    print(f"steps, mean                  {steps.mean():10.1f}")
    print(f"steps, most                  {steps.max():10d}")
    print(f"seconds                      {seconds:10.2f}")
    print(f"images a second              {len(x) / seconds:10,.0f}")
    missed = (y_adv != y_target).sum()
    if missed:
        print(f"{missed} of {len(x)} digits did not reach their target; they are saved as they are")
    print(f"wrote {files.show(output)}")
    return [output]


def target(text):
    """An argument that is a digit, or random."""
    return text if text == "random" else command.digit(text)


if __name__ == "__main__":
    command.run(main)
