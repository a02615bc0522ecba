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
    args = parse(argv)
    name = own_model.stem(args.model)
    output = args.output or results_path(name, args.method, args.regularization)
    files.check_output(output, args, [mnist.weights_path(args.model), data.PATH])
    network, x, y, indices = attack_run.read(args, args.limit)
    target = args.target
    if target not in ("any", "random"):
        target = network.target(target)
    aim = {"any": None, "random": attack.random_targets(y, args.seed, network.classes)}

    how = {
        "method": args.method,
        "regularization": args.regularization,
        "learning_rate": args.learning_rate,
        "max_steps": args.max_steps or attack.MAX_STEPS[args.method],
        "starts": args.starts,
    }
    search = functools.partial(attack.search, targeted=target != "any", **how)
    aim = aim.get(target, target)
    side_by_side = {"cluster": args.cluster, "batch_size": DIGITS[args.method]}
    found = attack_run.attack_digits(network, search, x, y, indices, aim, **side_by_side)
    arrays = found.arrays
    reached = results.succeeded(arrays)

    config = {
        "script": "method1_noise_optimization/attack_mnist.py",
        **network.settings(),
        **{name: how[name] for name in how if OF_METHOD.get(name, args.method) == args.method},
        "target": target,
        "limit": args.limit,
        "seed": args.seed,
        "left_out": found.left_out,
    }
    results.save(output, config=config, **arrays)
    title = f"{mnist.title(args.model)}, {args.method}"
    if args.method == "sgd":
        title += f", regularisation {args.regularization}"
    print(f"{title}, noise in pixel units")
    print(*found.table, sep="\n")
    print(attack.summary(arrays["noises"], reached, *["another class"] * (target == "any")))
    print(f"steps, mean                  {arrays['steps'].mean():10.1f}")
    print(f"steps, most                  {arrays['steps'].max():10d}")
    print(f"seconds                      {found.seconds:10.2f}")
    print(f"images a second              {len(reached) / found.seconds:10,.0f}")
    if not reached.all():
        missed = f"{(~reached).sum()} of {len(reached)} images did not reach their target"
        print(f"{missed}; they are saved as they are")
    return [output]


def parse(argv):
    parser = command.Parser(__doc__)
    option, rate = parser.add_argument, command.positive_float
    own_model.add_model(parser, "mlp")
    option("--method", choices=attack.METHODS, default="sgd", help="which method")
    kinds = "of sgd: nothing, mean |r|, or mean r²"
    option("--regularization", choices=attack.REGULARIZATIONS, default="l2", help=kinds)
    option("--learning-rate", type=rate, default=attack.LEARNING_RATE, help="of sgd")
    defaults = ", ".join(f"{method} {steps}" for method, steps in attack.MAX_STEPS.items())
    steps = "steps an image at most; for lbfgs, at each value of c, for minimal, at each start"
    command.add_count(parser, "--max-steps", f"{steps} (default: {defaults})")
    starts = "of minimal, at most: 1 is several times as fast and finds a little more noise"
    command.add_count(parser, "--starts", starts, attack.STARTS)
    option("--target", default="random", help="the class to be seen, random, or any but the label")
    data.add_samples(parser)
    command.add_count(parser, "--limit", "attack the first LIMIT digits (of a file: drawn)")
    command.add_seed(parser, "of the random targets")
    command.add_output(parser, "the .npz file to write (default: see above)")
    engine.add_arguments(parser)
    args = parser.parse_args(argv)
    if args.target == "any" and args.method != "minimal":
        parser.error("--target any goes with --method minimal")
    return args


if __name__ == "__main__":
    command.run(main)
