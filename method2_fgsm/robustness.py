"""How much one network withstands, ours or your own, and what it falls for: its report card.

    python method2_fgsm/robustness.py
    python method2_fgsm/robustness.py --model cnn_adversarial --eps 0.25
    python method2_fgsm/robustness.py --model mine.keras --samples mine.npz --eps 8/255

The first test digits, or samples, are attacked within epsilon (away from their labels, L∞) by each
of

    sign step               one step along the sign of the gradient (Goodfellow et al. 2015)
    projected steps         40 of them from 2 random starts (Madry et al. 2018), on the cross
                            entropy, on the margin of the logits, and on the margin to each of the
                            nine likeliest other classes (Gowal et al. 2019)
    smallest epsilon        100 steps to the nearest wrong answer, which look for the smallest noise
                            and need not stay within epsilon on the way
    ..., transferred        the sign step and the projected steps against the plain network; not for
                            a network of your own, of which no relative is known
    random squares          1,000 queries without any gradient (Andriushchenko et al. 2020)
    random noise            20 random corners of the box

and what counts is what is left under all of them: right before and after.  "only this" are the
images that no other attack fools, "proven" those of which interval bounds (bounds.py) prove that
none can; one that does ends the script with an error.  Where an attack that never looks at the
gradient does more than one that follows it, by more than chance explains, a line warns that the
gradient is masked.  Random squares are not compared with the single sign step.

Intervals are those of 95 % confidence for a share of so many images (Clopper & Pearson 1934).  The
figure shows accuracy against epsilon for the first 100, whose median |r|_2 is printed too, the
images whose smallest epsilon is smallest, and those that hold longest.

A network of your own is a .keras file, and --samples its images and labels (common/README.md).

reads   common/mnist.npz, common/weights/{model}.weights.h5, and those of the network that examples
        are transferred from; or a .keras file and its samples
writes  img/robustness_{model}.png, and all of its numbers beside it as .json
"""

import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common import command, files, plots, results
from common.command import Failure
from common.networks import mnist, own_model
from common.run import attack_run

# Of a file's network, in grey and in colour.
OWN_EPS = {False: 0.1, True: 8 / 255}
FEW = 100  # images, for curves and |r|₂
EPSILONS = np.linspace(0, 2, 9)  # of the curves, times eps


def share(hits):
    """How many of bool (n,) are true, their share, and its 95 % interval: a dict for JSON."""
    from scipy.stats import binomtest

    count = int(hits.sum())
    interval = binomtest(count, len(hits)).proportion_ci()
    return {
        "count": count,
        "share": count / len(hits),
        "interval": [float(interval.low), float(interval.high)],
    }


def summary(clean, standing):
    """What each attack leaves, what only it finds, and what all leave together: a dict for JSON.

    clean: bool (n,).  standing: bool (n,) for each attack by name, of images that are clean.
    """
    found = {"no attack": share(clean)}
    times = np.sum([clean & ~left for left in standing.values()], axis=0)
    for name, left in (standing | {"all together": clean & (times == 0)}).items():
        found[name] = share(left) | {"fooled": int((clean & ~left).sum())}
        if name in standing:
            found[name]["only this"] = int((~left & (times == 1)).sum())
    return found


def print_table(rows):
    """Print a dict of `share` by name."""
    print(f"{'':36}{'accuracy':>10}{'95 % interval':>20}{'fooled':>9}{'only this':>12}")
    for name, row in rows.items():
        low, high = (f"{100 * end:.1f}" for end in row["interval"])
        counts = f"{row.get('fooled', ''):9}{row.get('only this', ''):12}"
        print(f"{name:36}{row['share']:10.2%}{f'{low} to {high}':>20}{counts}".rstrip())


def main(argv=None):
    parser = command.Parser(__doc__)
    own_model.add_model(parser, "cnn_robust")
    parser.add_argument("--samples", type=command.path, help="images (default: the test digits)")
    parser.add_argument(
        "--eps",
        type=command.pixel_size,
        help="largest change of a pixel (default: 0.3 for a CNN of ours, otherwise 0.1; for a file "
        "in colour 8/255)",
    )
    command.add_count(parser, "--count", "how many images (of a file: drawn)", 1000)
    command.add_seed(parser, "random starts, squares, noise")
    command.add_output(parser, "the figure to write (default: img/robustness_{model}.png)")
    args = parser.parse_args(argv)
    figure = args.output or files.IMG / f"robustness_{own_model.stem(args.model)}.png"
    plots.check_output(figure, args)
    written = [figure, files.check_output(figure.with_suffix(".json"), args)]
    own = isinstance(args.model, Path)
    source = None if own else mnist.load(mnist.source_of(args.model))
    network, model, judge, x, y, _ = attack_run.opened(
        args, args.count, full_test_set=args.samples is None
    )
    eps = args.eps
    if eps is None:
        eps = OWN_EPS[x.shape[3:] == (3,)] if own else mnist.trained_eps(args.model)

    from method1_noise_optimization.nearest import nearest
    from method2_fgsm import report_figure
    from method2_fgsm.robust import bounds, ensemble

    with_gradient, without = ensemble.attacks(source)
    clean = mnist.classify(judge, x) == y
    if not clean.any():
        raise Failure(
            f"{mnist.title(args.model)} misclassifies all {len(x)} images: nothing is "
            "left to attack; look at its labels, and at --pixels"
        )
    standing = {
        name: ensemble.withstood(model, x, y, eps, attack, judge=judge, seed=args.seed)
        for name, attack in tqdm({**with_gradient, **without}.items(), disable=None, unit="attack")
    }
    rows = summary(clean, standing)
    right, how = (x[clean], y[clean]), {"steps": ensemble.SMALLEST_STEPS, "judge": judge}
    x_adv, smallest = nearest(model, *right, "linf", **how)
    _, l2 = nearest(model, *(part[:FEW] for part in right), "l2", judge=judge)
    near = np.zeros(len(x))
    near[clean] = smallest
    try:
        proven, unproven = bounds.proven(model, x, y, eps), []
    except ValueError as error:
        unproven = [f"nothing can be proven: {error}"]
    else:
        rows["proven"] = share(proven)
        left = np.all(list(standing.values()), axis=0)
        ensemble.check_proof(np.where(proven, eps, np.nan), np.where(left, near, eps))
    masked = ensemble.masked(*({k: standing[k] for k in kind} for kind in (with_gradient, without)))

    title = f"{mnist.title(args.model)}, ε = {eps:.4g}"
    print(f"{mnist.title(args.model)}, eps {eps:.4g}: {len(x)} images")
    print_table(rows)
    medians = {
        "smallest epsilon, median": float(np.median(smallest)),
        "smallest |r|_2, median": float(np.median(l2)),
    }
    for name, value in medians.items():
        print(f"{name:36}{value:10.4f}")
    for line in [*unproven, *(f"warning: {line}" for line in masked)]:
        print(line)

    few = slice(FEW)
    epsilons = np.minimum(EPSILONS * eps, 1)
    places = ensemble.largest_withstood(
        model, source, x[few], y[few], epsilons, judge=judge, seed=args.seed
    )
    curves = {
        "one sign step": ensemble.sign_step_curve(model, x[few], y[few], epsilons, judge=judge),
        "many steps": np.array([(clean & (near > e))[few].mean() for e in epsilons]),
        "all attacks": np.array([(places >= place).mean() for place in range(len(epsilons))]),
    }
    report = {
        **network.settings(),
        "eps": eps,
        "count": len(x),
        "seed": args.seed,
        "rows": rows,
        "masked gradients": masked,
        **{name: value if np.isfinite(value) else None for name, value in medians.items()},
        "curves": {"eps": epsilons.tolist()}
        | {name: curve.tolist() for name, curve in curves.items()},
        "versions": results.versions(),
    }
    found = np.isfinite(smallest)
    images = x[clean][found], x_adv[found], smallest[found]
    drawn = report_figure.draw(model, *images, network.label, epsilons, curves, len(places), title)
    plots.save(drawn, figure)
    with files.replacing(written[1]) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return written


if __name__ == "__main__":
    command.run(main)
