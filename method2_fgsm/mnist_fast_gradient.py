"""Attack 5,000 digits with the fast gradient sign method and save the results.

    python method2_fgsm/mnist_fast_gradient.py --model mlp --eps 0.1
    python method2_fgsm/mnist_fast_gradient.py --model cnn --target 6 --full-test-set

Untargeted, away from the true label (Goodfellow et al. 2015, section 4); with --target, towards
that digit.  Digits that the model gets wrong before the attack are left out and counted; so
are, with --target, those that show the target already.

reads   common/mnist.npz, common/weights/{model}.weights.h5, common/5k_samples.npz
writes  method2_fgsm/results_mnist_{model}.npz (its format: common/results.py)
"""

import time
from pathlib import Path

import numpy as np

from common import command, data, files, models, results, samples


def wrong_label_confidence(logits, y):
    """Error rate, and mean confidence in the wrong label, as Goodfellow et al. report them.

    logits (n, classes), y (n,) true labels.  The confidence is the probability of the predicted
    label, averaged over those images that are misclassified; NaN where none is.
    """
    wrong = logits.argmax(axis=1) != y
    confidence = models.softmax(logits.astype(np.float64)).max(axis=1)
    mean = confidence[wrong].mean() if wrong.any() else np.nan
    return wrong.mean() if len(y) else np.nan, mean


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
        "--samples", type=Path, default=samples.PATH, help="the digits, from generate_5k.py"
    )
    which.add_argument(
        "--full-test-set", action="store_true", help="all 10,000 test digits instead"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="the .npz file to write (default: method2_fgsm/results_mnist_{model}.npz)",
    )
    args = parser.parse_args(argv)
    folder = files.ROOT / "method2_fgsm"
    output = files.check_output(args.output or folder / f"results_mnist_{args.model}.npz")

    if args.full_test_set:
        x, y = data.load("test")
        indices = np.arange(len(x))
    else:
        x, y, indices = samples.load(args.samples)
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
    labels = np.full(len(x), args.target) if targeted else y
    fgsm.fgsm(model, x[:1000], labels[:1000], args.eps, targeted=targeted)  # compile, untimed
    start = time.perf_counter()
    x_adv = fgsm.fgsm(model, x, labels, args.eps, targeted=targeted)
    seconds = time.perf_counter() - start

    logits = models.predict(model, x_adv)
    y_adv = logits.argmax(axis=1)
    noises = x_adv - x
    results.save(
        output,
        xs=x,
        noises=noises,
        y_trues=y,
        y_preds=y,  # only digits classified correctly are here
        y_preds_adversarial=y_adv,
        y_targets=labels if targeted else None,
        indices=indices,
        config={
            "script": "method2_fgsm/mnist_fast_gradient.py",
            "method": "fgsm",
            "model": args.model,
            "eps": args.eps,
            "target": args.target,
            "full_test_set": args.full_test_set,
            "left_out": int(count - len(x)),
        },
    )
    error, confidence = wrong_label_confidence(logits, y)
    print(f"{models.title(args.model)}, eps {args.eps:g} in pixel units")
    print(f"digits                       {count:10d}")
    print(f"left out: misclassified      {(~right).sum():10d}")
    if targeted:
        print(f"left out: are a {args.target} already   {there.sum():10d}")
    print(f"attacked                     {len(x):10d}")
    print(f"error rate                   {error:10.2%}")
    if targeted:
        print(f"seen as the target {args.target}         {(y_adv == args.target).mean():10.2%}")
    print(f"mean confidence when wrong   {confidence:10.2%}")
    print(f"noise mean |r|               {np.abs(noises).mean():10.4f}")
    print(f"noise max                    {noises.max():10.4f}")
    print(f"noise min                    {noises.min():10.4f}")
    print(f"images a second              {len(x) / seconds:10,.0f}")
    print(f"wrote {files.show(output)}")
    return [output]


if __name__ == "__main__":
    command.run(main)
