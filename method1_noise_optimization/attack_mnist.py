"""Find noise that turns each of 5,000 digits into another one, and save the results.

    python method1_noise_optimization/attack_mnist.py --model cnn --method minimal --limit 500
    python method1_noise_optimization/attack_mnist.py --model mine.keras --samples mine.npz

Digits that the model gets wrong before the attack are left out and counted; with --target, so are
digits of that class.  README.md in this folder says what the methods are.

reads   common/weights/{model}.weights.h5 or a .keras file, common/5k_samples.npz
writes  method1_noise_optimization/results_{model}_{method}.npz, for sgd
        results_{model}_sgd_{regularization}.npz (the format: common/results.py)
"""

import functools

from common import command, data, files, results
from common.networks import mnist, own_model
from common.run import attack_run, engine
from method1_noise_optimization import attack

# Digits for a core at a time: those of sgd are worked on as others finish.
DIGITS = {"sgd": 1250, "lbfgs": 125, "minimal": 125, "fewest": 125}


def main(argv=None):
    args = parse(argv)
    method, kind = args.method, f"_{args.regularization}" if args.method == "sgd" else ""
    name = f"results_{own_model.stem(args.model)}_{method}{kind}.npz"
    output = args.output or files.ROOT / "method1_noise_optimization" / name
    files.check_output(output, args, [mnist.weights_path(args.model), data.PATH])
    network, x, y, indices = attack_run.read(args, args.limit)

    how = {"method": method, "max_steps": args.max_steps or attack.MAX_STEPS[method]}
    if method == "sgd":
        how |= {"regularization": args.regularization, "learning_rate": args.learning_rate}
    elif method == "minimal":
        how["starts"] = args.starts
    how["confidence"] = args.confidence
    target = aim = args.target
    if target == "any":
        aim = None
    elif target == "random":
        aim = attack.random_targets(y, args.seed, network.classes)
    else:
        target = aim = network.target(target)

    search = functools.partial(attack.search, targeted=target != "any", **how)
    side_by_side = {"cluster": args.cluster, "batch_size": DIGITS[method]}
    found = attack_run.attack_digits(network, search, x, y, indices, aim, **side_by_side)

    config = {
        "script": "method1_noise_optimization/attack_mnist.py",
        **network.settings(),
        **how,
        "target": target,
        "limit": args.limit,
        "seed": args.seed,
        "left_out": found.left_out,
    }
    if args.confidence:
        found.arrays["confidences_adversarial"] = mnist.softmax(found.logits).max(axis=1)
    results.save(output, config=config, **found.arrays)
    reached, steps = results.succeeded(found.arrays | {"config": config}), found.arrays["steps"]
    kind = f", regularisation {args.regularization}" if kind else ""
    kind += f", probability above {args.confidence}" if args.confidence else ""
    print(f"{mnist.title(args.model)}, {method}{kind}, noise in pixel units")
    print(*found.table, sep="\n")
    goal = "another class" if target == "any" else "the target"
    print(attack.summary(found.arrays["noises"], reached, goal))
    print(f"steps, mean                  {steps.mean():10.1f}")
    print(f"steps, most                  {steps.max():10d}")
    print(f"seconds                      {found.seconds:10.2f}")
    print(f"images a second              {len(reached) / found.seconds:10,.0f}")
    if not reached.all():
        missed = f"{(~reached).sum()} of {len(reached)} images did not reach their target"
        print(f"{missed}; they are saved as they are")
    return [output]


def parse(argv):
    parser = command.Parser(__doc__)
    parser.usage = "%(prog)s [options]"  # which stand below: they are many
    option, rate = parser.add_argument, command.positive_float
    own_model.add_model(parser, "mlp")
    option("--method", choices=attack.METHODS, default="sgd", help="which method")
    kinds = "of sgd: nothing, mean |r|, or mean r²"
    option("--regularization", choices=attack.REGULARIZATIONS, default="l2", help=kinds)
    option("--learning-rate", type=rate, default=attack.LEARNING_RATE, help="of sgd")
    defaults = ", ".join(f"{method} {steps}" for method, steps in attack.MAX_STEPS.items())
    steps = "for each image; of lbfgs for each c, of minimal and fewest for each start"
    command.add_count(parser, "--max-steps", f"{steps} (default: {defaults})")
    starts = "of minimal, at most: fewer are faster"
    command.add_count(parser, "--starts", starts, attack.STARTS)
    option("--target", default="random", help="a class, random, or any (minimal and fewest)")
    sure = "least probability of the target, or other class"
    option("--confidence", type=command.probability, metavar="P", help=sure)
    data.add_samples(parser)
    command.add_count(parser, "--limit", "attack the first LIMIT digits (of a file: drawn)")
    command.add_seed(parser, "of the random targets")
    command.add_output(parser, "the .npz file to write (default: see above)")
    engine.add_arguments(parser)
    args = parser.parse_args(argv)
    if args.target == "any" and args.method not in attack.UNTARGETED:
        parser.error("--target any goes with --method minimal or fewest")
    return args


if __name__ == "__main__":
    command.run(main)
