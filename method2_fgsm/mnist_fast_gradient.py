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
    parser = command.Parser(__doc__)
    own_model.add_model(parser, "mlp")
    parser.add_argument(
        "--eps", type=command.pixel_size, default=0.1, help="size of the step in pixel units"
    )
    parser.add_argument("--steps", type=command.positive_int, default=1, help="1: the sign step")
    parser.add_argument("--target", help="the class to be seen (default: any wrong one)")
    which = parser.add_mutually_exclusive_group()
    data.add_samples(which)
    which.add_argument(
        "--full-test-set", action="store_true", help="all 10,000 test digits instead"
    )
    command.add_output(
        parser, "the .npz file to write (default: method2_fgsm/results_mnist_{model}.npz)"
    )
    engine.add_arguments(parser)
    args = parser.parse_args(argv)
    name = f"results_mnist_{own_model.stem(args.model)}.npz"
    output = args.output or files.ROOT / "method2_fgsm" / name
    files.check_output(output, args, [mnist.weights_path(args.model), data.PATH])

    network, x, y, indices = attack_run.read(args, full_test_set=args.full_test_set)
    targeted = args.target is not None
    target = network.target(args.target) if targeted else None

    from method2_fgsm import fgsm, smallest_eps

    how = {"eps": args.eps, "targeted": targeted, "batch_size": BATCH}
    if args.steps == 1:
        attack = functools.partial(fgsm.fgsm, **how)
    else:
        attack = functools.partial(smallest_eps.within_eps, steps=args.steps, **how)
    y_target = np.full_like(y, target) if targeted else None
    found = attack_run.attack_digits(
        args, network, attack, x, y, indices, y_target, batch_size=BATCH
    )
    noises, y_adv = found.x_adv - found.x, found.y_adv

    config = {
        "script": "method2_fgsm/mnist_fast_gradient.py",
        "method": "fgsm" if args.steps == 1 else "many steps",
        **network.settings(),
        "eps": args.eps,
        **({"steps": args.steps} if args.steps > 1 else {}),
        "target": target,
        "full_test_set": args.full_test_set,
        "left_out": found.count - len(found.x),
    }
    results.save(
        output,
        xs=found.x,
        noises=noises,
        y_trues=found.y,
        y_preds=found.y,  # only digits classified correctly are here
        y_preds_adversarial=y_adv,
        y_targets=found.y_target,
        indices=found.indices,
        config=config,
    )
    error, confidence = mnist.wrong_label_confidence(found.logits, found.y, y_adv)
    steps = "" if args.steps == 1 else f", {args.steps} steps"
    print(f"{mnist.title(args.model)}, eps {args.eps:g} in pixel units{steps}")
    print(f"images                       {found.count:10d}")
    print(f"left out: misclassified      {found.misclassified:10d}")
    if targeted:
        label = network.label(target)
        print(f"{f'left out: are a {label} already':28} {found.are_target:10d}")
    print(f"attacked                     {len(found.x):10d}")
    print(f"error rate                   {error:10.2%}")
    if targeted:
        print(f"{f'seen as the target {label}':28} {(y_adv == target).mean():10.2%}")
    print(
        f"mean confidence when wrong   {'-' if np.isnan(confidence) else f'{confidence:.2%}':>10}"
    )
    print(f"noise mean |r|               {np.abs(noises).mean():10.4f}")
    print(f"noise max                    {noises.max():10.4f}")
    print(f"noise min                    {noises.min():10.4f}")
    print(f"images a second              {len(found.x) / found.seconds:10,.0f}")
    return [output]


if __name__ == "__main__":
    command.run(main)
