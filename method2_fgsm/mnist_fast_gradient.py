"""Attack 5,000 digits with the fast gradient sign method and save the results.

    python method2_fgsm/mnist_fast_gradient.py --model mlp --eps 0.1
    python method2_fgsm/mnist_fast_gradient.py --model cnn --target 6 --full-test-set

Untargeted, away from the true label (Goodfellow et al. 2015, section 4); with --target, towards
that digit.  Digits that the model gets wrong before the attack are left out and counted; so
are, with --target, those that show the target already.

--steps takes as many steps within epsilon instead of one: projected ones (pgd.py), or with
--target those that look for the smallest epsilon (smallest_eps.py).

reads   common/mnist.npz, common/weights/{model}.weights.h5, common/5k_samples.npz
writes  method2_fgsm/results_mnist_{model}.npz (its format: common/results.py)
"""

import functools
import time

import numpy as np

from common import command, data, digit_attack, engine, files, models, results

BATCH = 1000  # digits at a time


def main(argv=None):
    parser = command.Parser(__doc__)
    models.add_model(parser, "mlp")
    parser.add_argument(
        "--eps", type=command.pixel_size, default=0.1, help="size of the step in pixel units"
    )
    parser.add_argument("--steps", type=command.positive_int, default=1, help="1: the sign step")
    parser.add_argument(
        "--target", type=command.digit, help="the digit to be seen (default: any wrong one)"
    )
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
    output = args.output or files.ROOT / "method2_fgsm" / f"results_mnist_{args.model}.npz"
    files.check_output(output)

    if args.full_test_set:
        x, y = data.load("test")
        indices = np.arange(len(x))
    else:
        x, y, indices = data.load_samples(args.samples)
    model = digit_attack.load(args.model)

    from method2_fgsm import fgsm, smallest_eps

    count = len(x)
    right = models.classify(model, x) == y
    is_target = right & (y == args.target)
    kept = right & ~is_target
    if not kept.any():
        raise command.Failure(f"none of the {count} digits is left to attack: choose other ones")
    x, y = x[kept], y[kept]
    indices = None if indices is None else indices[kept]
    targeted = args.target is not None
    y_attacked = np.full_like(y, args.target) if targeted else y

    how = {"eps": args.eps, "targeted": targeted, "batch_size": BATCH}
    if args.steps == 1:
        attack = functools.partial(fgsm.fgsm, **how)
    else:
        attack = functools.partial(smallest_eps.within_eps, steps=args.steps, **how)
    # Compiled untimed: for whole batches, and for what is left.
    for rows in {min(len(x), BATCH), len(x) % BATCH} - {0}:
        attack(model, x[:rows], y_attacked[:rows])
    with engine.start(args.workers, args.cluster) as run:
        start = time.perf_counter()
        x_adv = digit_attack.attack_digits(run, attack, args.model, x, y_attacked, batch_size=BATCH)
        seconds = time.perf_counter() - start
    noises = x_adv - x
    logits = models.predict(model, x_adv)
    y_adv = logits.argmax(axis=1)

    config = {
        "script": "method2_fgsm/mnist_fast_gradient.py",
        "method": "fgsm" if args.steps == 1 else "many steps",
        "model": args.model,
        "eps": args.eps,
        **({"steps": args.steps} if args.steps > 1 else {}),
        "target": args.target,
        "full_test_set": args.full_test_set,
        "left_out": int(count - len(x)),
    }
    results.save(
        output,
        xs=x,
        noises=noises,
        y_trues=y,
        y_preds=y,  # only digits classified correctly are here
        y_preds_adversarial=y_adv,
        y_targets=y_attacked if targeted else None,
        indices=indices,
        config=config,
    )
    error, confidence = models.wrong_label_confidence(logits, y)
    steps = "" if args.steps == 1 else f", {args.steps} steps"
    print(f"{models.title(args.model)}, eps {args.eps:g} in pixel units{steps}")
    print(f"digits                       {count:10d}")
    print(f"left out: misclassified      {(~right).sum():10d}")
    if targeted:
        print(f"left out: are a {args.target} already   {is_target.sum():10d}")
    print(f"attacked                     {len(x):10d}")
    print(f"error rate                   {error:10.2%}")
    if targeted:
        print(f"seen as the target {args.target}         {(y_adv == args.target).mean():10.2%}")
    print(
        f"mean confidence when wrong   {'-' if np.isnan(confidence) else f'{confidence:.2%}':>10}"
    )
    print(f"noise mean |r|               {np.abs(noises).mean():10.4f}")
    print(f"noise max                    {noises.max():10.4f}")
    print(f"noise min                    {noises.min():10.4f}")
    print(f"images a second              {len(x) / seconds:10,.0f}")
    return [output]


if __name__ == "__main__":
    command.run(main)
