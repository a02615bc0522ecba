"""Attack 5,000 digits with the fast gradient sign method and save the results.

    python method2_fgsm/mnist_fast_gradient.py --model mlp --eps 0.1
    python method2_fgsm/mnist_fast_gradient.py --model cnn --target 6 --full-test-set
    python method2_fgsm/mnist_fast_gradient.py --model mine.keras --samples mine.npz --eps 8/255

Untargeted, away from the true label (Goodfellow et al. 2015, section 4); with --target, towards
that digit.  Digits that the model gets wrong before the attack are left out and counted; so
are, with --target, those that show the target already.

--steps takes as many steps within epsilon instead of one: projected ones (pgd.py), or with
--target those that look for the smallest epsilon (smallest_eps.py).

A network of your own is a .keras file, and --samples its images and labels (common/README.md).

reads   common/mnist.npz, common/weights/{model}.weights.h5 or a .keras file, common/5k_samples.npz
writes  method2_fgsm/results_mnist_{model}.npz (its format: common/results.py)
"""

import functools

import numpy as np

from common import command, data, files, results
from common.networks import mnist, own_model
from common.run import attack_run, engine

BATCH = 250  # digits for a core at a time


def main(argv=None):
    args = parse(argv)
    name = f"results_mnist_{own_model.stem(args.model)}.npz"
    output = args.output or files.ROOT / "method2_fgsm" / name
    files.check_output(output, args, [mnist.weights_path(args.model), data.PATH])
    network, x, y, indices = attack_run.read(args, full_test_set=args.full_test_set)
    target = None if args.target is None else network.target(args.target)

    from method2_fgsm import fgsm, smallest_eps

    attack, config = fgsm.fgsm, {"method": "fgsm"}
    if args.steps > 1:
        attack = functools.partial(smallest_eps.within_eps, steps=args.steps)
        config = {"method": "many steps", "steps": args.steps}
    attack = functools.partial(attack, eps=args.eps, targeted=target is not None, batch_size=BATCH)
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
    error, confidence = mnist.wrong_label_confidence(found.logits, found.arrays["y_trues"], y_adv)
    steps = "" if args.steps == 1 else f", {args.steps} steps"
    print(f"{mnist.title(args.model)}, eps {args.eps:g} in pixel units{steps}")
    print(*found.table, sep="\n")
    print(f"attacked                     {len(noises):10d}")
    print(f"error rate                   {error:10.2%}")
    if target is not None:
        seen = f"seen as the target {network.label(target)}"
        print(f"{seen:28} {(y_adv == target).mean():10.2%}")
    mean = "-" if np.isnan(confidence) else f"{confidence:.2%}"
    print(f"mean confidence when wrong   {mean:>10}")
    print(f"noise mean |r|               {np.abs(noises).mean():10.4f}")
    print(f"noise max                    {noises.max():10.4f}")
    print(f"noise min                    {noises.min():10.4f}")
    print(f"images a second              {len(noises) / found.seconds:10,.0f}")
    return [output]


def parse(argv):
    parser = command.Parser(__doc__)
    own_model.add_model(parser, "mlp")
    option = parser.add_argument
    option("--eps", type=command.pixel_size, default=0.1, help="size of the step in pixel units")
    command.add_count(parser, "--steps", "1: the sign step", 1)
    option("--target", help="the class to be seen (default: any wrong one)")
    which = parser.add_mutually_exclusive_group()
    data.add_samples(which)
    which.add_argument("--full-test-set", action="store_true", help="all 10,000 test digits")
    output = "the .npz file to write (default: method2_fgsm/results_mnist_{model}.npz)"
    command.add_output(parser, output)
    engine.add_arguments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(main)
