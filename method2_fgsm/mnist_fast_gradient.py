"""Attack 5,000 digits with the fast gradient sign method and save the results.

    python method2_fgsm/mnist_fast_gradient.py --model mlp --eps 0.1
    python method2_fgsm/mnist_fast_gradient.py --model cnn --target 6 --full-test-set

Untargeted, away from the true label (Goodfellow et al. 2015, section 4); with --target, towards
that digit.  Digits that the model gets wrong before the attack are left out and counted; so
are, with --target, those that show the target already.

--strategy mirrored splits the digits over all GPUs of this machine, multiworker over several
machines with the same command (common/distribution.py, common/shards.py).

reads   common/mnist.npz, common/weights/{model}.weights.h5, common/5k_samples.npz
writes  method2_fgsm/results_mnist_{model}.npz (its format: common/results.py)
        with several workers, until all are done, results_mnist_{model}.worker-*-of-*.npz
"""

import time
from pathlib import Path

import numpy as np

from common import command, data, distribution, files, models, results, shards

BATCH = 1000  # digits at a time


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--model", type=models.argument, default="mlp", help="which classifier")
    parser.add_argument(
        "--eps", type=command.pixel_size, default=0.1, help="size of the step in pixel units"
    )
    parser.add_argument(
        "--target", type=command.digit, help="the digit to be seen (default: any wrong one)"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--samples", type=Path, default=data.SAMPLES, help="the digits, from generate_5k.py"
    )
    which.add_argument(
        "--full-test-set", action="store_true", help="all 10,000 test digits instead"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="the .npz file to write (default: method2_fgsm/results_mnist_{model}.npz)",
    )
    distribution.add_argument(parser)
    shards.add_arguments(parser)
    args = shards.parse(parser, argv)
    output = args.output or files.ROOT / "method2_fgsm" / f"results_mnist_{args.model}.npz"
    worker = distribution.worker(args.strategy)
    shards.check_output(output, worker)

    if args.full_test_set:
        x, y = data.load("test")
        indices = np.arange(len(x))
    else:
        x, y, indices = data.load_samples(args.samples)
    model = models.load(args.model)

    from method2_fgsm import fgsm

    count = len(x)
    right = models.classify(model, x) == y
    there = (y == args.target) & right
    kept = right & ~there
    if not kept.any():
        raise command.Failure(f"none of the {count} digits is left to attack: choose other ones")
    x, y, indices = x[kept], y[kept], indices[kept]

    targeted = args.target is not None
    digits = {
        "xs": x,
        "y_trues": y,
        "y_preds": y,  # only digits classified correctly are here
        "indices": indices,
    }
    if targeted:
        digits["y_targets"] = np.full(len(x), args.target)
    share = distribution.sharing(model, args.strategy)

    def step(model, x, labels):
        return fgsm.fgsm(model, x, labels, args.eps, targeted=targeted, batch_size=BATCH)

    def find(digits):
        x, labels = digits["xs"], digits["y_targets" if targeted else "y_trues"]
        # Compiled untimed: for whole batches, and for what is left.
        for rows in {min(len(x), BATCH), len(x) % BATCH} - {0}:
            share(step, x[:rows], labels[:rows])
        start = time.perf_counter()
        x_adv = share(step, x, labels)
        seconds = time.perf_counter() - start
        logits = models.predict(model, x_adv)
        found = {"noises": x_adv - x, "logits": logits}
        return found | {"y_preds_adversarial": logits.argmax(axis=1)}, seconds

    config = {
        "script": "method2_fgsm/mnist_fast_gradient.py",
        "method": "fgsm",
        "model": args.model,
        "eps": args.eps,
        "target": args.target,
        "full_test_set": args.full_test_set,
        "left_out": int(count - len(x)),
    }
    merged = shards.attack(
        worker, output, digits, config, find, model=args.model, block=BATCH, piece=BATCH, args=args
    )
    if merged is None:
        return []
    found, seconds = merged
    logits, noises, y_adv = (found[key] for key in ("logits", "noises", "y_preds_adversarial"))
    results.save(output, **digits, noises=noises, y_preds_adversarial=y_adv, config=config)
    shards.remove(output, worker)
    error, confidence = models.wrong_label_confidence(logits, y)
    print(f"{models.title(args.model)}, eps {args.eps:g} in pixel units")
    print(f"digits                       {count:10d}")
    print(f"left out: misclassified      {(~right).sum():10d}")
    if targeted:
        print(f"left out: are a {args.target} already   {there.sum():10d}")
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
    print(f"wrote {files.show(output)}")
    return [output]


if __name__ == "__main__":
    command.run(main)
