"""Attack 5,000 digits with one sign step (FGSM) and save the results.

    python method2_fgsm/mnist_fast_gradient.py --model mlp --eps 0.1
    python method2_fgsm/mnist_fast_gradient.py --model cnn --target 6 --full-test-set

Untargeted, away from the true label; with --target, towards that class. What is misclassified
before the attack, or is the target already, is left out and counted. A network of
your own is a .keras file, with --samples (common/README.md).

reads   common/mnist.npz, common/weights/{model}.weights.h5 or a .keras file, --samples
writes  method2_fgsm/results_mnist_{model}.npz (its format: common/results.py)
"""

import functools

import numpy as np

from common import command, data, files, results
from common.networks import mnist, own_model
from common.run import attack_run, engine
from method2_fgsm.accuracy_vs_epsilon import wrong_label_confidence

BATCH = 250  # digits for a core at a time


def main(argv=None):
    parser = command.Parser(__doc__)
    own_model.add_model(parser, "mlp")
    command.option(parser, "--eps", command.pixel_size, 0.1, "size of the step in pixel units")
    steps = "more: projected steps within eps, with --target those for the smallest"
    command.add_count(parser, "--steps", steps, 1)
    command.option(parser, "--target", str, None, "the class to be seen (default: any wrong one)")
    which = parser.add_mutually_exclusive_group()
    data.add_samples(which)
    which.add_argument("--full-test-set", action="store_true", help="all 10,000 test digits")
    output = "the .npz file to write (default: method2_fgsm/results_mnist_{model}.npz)"
    command.add_output(parser, output)
    engine.add_arguments(parser)
    args = parser.parse_args(argv)
    name = f"results_mnist_{own_model.stem(args.model)}.npz"
    output = args.output or files.ROOT / "method2_fgsm" / name
    files.check_output(output, args, [mnist.weights_path(args.model), data.PATH])
    network, x, y, indices = attack_run.read(args, full_test_set=args.full_test_set)
    target = None if args.target is None else network.target(args.target)

    from method2_fgsm import fgsm, pgd, smallest_eps

    attack, config = functools.partial(fgsm.fgsm, targeted=target is not None), {"method": "fgsm"}
    if args.steps > 1:
        attack = pgd.pgd if target is None else smallest_eps.within_eps
        attack = functools.partial(attack, steps=args.steps)
        config = {"method": "many steps", "steps": args.steps}
    attack = functools.partial(attack, eps=args.eps, batch_size=BATCH)
    found = attack_run.attack_digits(
        network, attack, x, y, indices, target, cluster=args.cluster, batch_size=BATCH
    )

    config |= {
        "script": "method2_fgsm/mnist_fast_gradient.py",
        **network.settings(),
        "eps": args.eps,
        "target": target,
        "full_test_set": args.full_test_set,
        "left_out": found.left_out,
    }
    results.save(output, config=config, **found.arrays)
    noises, y_adv = found.arrays["noises"], found.arrays["y_preds_adversarial"]
    error, confidence = wrong_label_confidence(found.logits, found.arrays["y_trues"], y_adv)
    steps = "" if args.steps == 1 else f", {args.steps} steps"
    print(f"{mnist.title(args.model)}, eps {args.eps:g} in pixel units{steps}")
    print(*found.table, sep="\n")
    rows = {"attacked": len(noises), "accuracy": f"{1 - error:.2%}"}
    if target is not None:
        rows[f"seen as the target {network.label(target)}"] = f"{(y_adv == target).mean():.2%}"
    rows["mean confidence when wrong"] = "-" if np.isnan(confidence) else f"{confidence:.2%}"
    sizes = {"mean |r|": np.abs(noises).mean(), "max": noises.max(), "min": noises.min()}
    rows |= {f"noise {name}": f"{size:.4f}" for name, size in sizes.items()}
    rows["images a second"] = f"{len(noises) / found.seconds:,.0f}"
    for name, value in rows.items():
        print(f"{name:28} {value:>10}")
    return [output]


if __name__ == "__main__":
    command.run(main)
