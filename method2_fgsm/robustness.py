"""Report card of one network, ours or yours: accuracy under each attack and under all.

    python method2_fgsm/robustness.py --model cnn_adversarial --eps 0.25
    python method2_fgsm/robustness.py --model mine.keras --samples mine.npz --eps 8/255

Nine attacks within epsilon (robust/ensemble.py), and what all of them leave: right
before and after.  "only this" are the images that no other attack fools,
"proven" those of which interval bounds (robust/bounds.py) prove that none can.
Intervals are of 95 % confidence (Clopper & Pearson 1934).  A warning says where
an attack that never looks at the gradient does more than one that follows it,
by more than chance explains: the gradient is masked.

reads   common/mnist.npz, common/weights/{model}.weights.h5 and those of the
        network that examples are transferred from; or a .keras file, --samples
writes  img/robustness_{model}.png, and its numbers beside it as .json
"""

import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common import command, files, plots, results
from common.command import Failure
from common.networks import mnist, own_model

# Of a file's network, in grey and in colour.
OWN_EPS = {False: 0.1, True: 8 / 255}
FEW = 100  # images, for |r|₂
EPSILONS = np.linspace(0, 2, 7)  # of the curves, times eps
SHOWN = 4  # images that fall first, and as many that hold longest


def share(hits):
    """How many of bool (n,) are true, their share, and its 95 % interval: a dict for JSON."""
    from scipy.stats import binomtest

    count = int(hits.sum())
    interval = binomtest(count, len(hits)).proportion_ci()
    ends = [float(interval.low), float(interval.high)]
    return {"count": count, "share": count / len(hits), "interval": ends}


def summary(clean, standing):
    """What each attack leaves, what only it finds, and what all leave together: a dict for JSON.

    clean: bool (n,).  standing: bool (n,) for each attack by name, of images that are clean.
    """
    rows = {"no attack": share(clean)}
    times = np.sum([clean & ~left for left in standing.values()], axis=0)
    for name, left in (standing | {"all together": clean & (times == 0)}).items():
        rows[name] = share(left) | {"fooled": int((clean & ~left).sum())}
        if name in standing:
            rows[name]["only this"] = int((~left & (times == 1)).sum())
    return rows


def table(rows):
    """A dict of `share` by name, as text."""
    titles, cells = ("", "accuracy", "95 % interval", "fooled", "only this"), []
    for name, row in rows.items():
        low, high = (100 * end for end in row["interval"])
        counts = (row.get(title, "") for title in titles[-2:])
        cells.append((name, f"{row['share']:.2%}", f"{low:.1f} to {high:.1f}", *counts))
    return command.table(titles, cells)


@plots.our_style()
def draw(model, x, x_adv, smallest, label, epsilons, curves, eps, title):
    """Accuracy against epsilon, and the images whose smallest epsilon is smallest and largest.

    x, x_adv: float32 (n, ...), before and at their smallest epsilon, `smallest` (n,).
    label(index): what a class is called.  curves: accuracies by name at each of `epsilons`.
    eps: that of the table.
    """
    fig = plots.figure(14, 7.6, title)
    left, right = fig.subfigures(1, 2, width_ratios=(1, 1.15))
    ax = left.subplots()
    marks = zip(curves.items(), (1, 4, 0), ("o--", "s-", "o-"), strict=True)
    plots.accuracy_curves(ax, epsilons, [(*curve, colour, line) for curve, colour, line in marks])
    ax.axvline(eps, color="black", linestyle=":", label=f"ε = {eps:.4g}, of the table")
    ax.legend()
    axes = right.subplots(4, SHOWN)
    for ax in axes.flat:
        ax.set_axis_off()
    order = np.argsort(smallest, kind="stable")
    rows = (0, "fall first", order[:SHOWN]), (2, "hold longest", order[SHOWN:][-SHOWN:])
    for row, heading, images in rows:
        for column, image in enumerate(images):
            pictures = ("", x[image]), (f"ε {smallest[image]:.3f}: ", x_adv[image])
            for ax, (eps, picture) in zip(axes[row : row + 2, column], pictures, strict=True):
                p = mnist.softmax(mnist.predict(model, picture[np.newaxis]))[0]
                plots.digit(ax, picture)
                ax.set_title(f"{eps}{label(p.argmax()):.14} {p.max():.0%}", fontsize=10)
        if len(images):
            axes[row, 0].set_axis_on()
            axes[row, 0].set_ylabel(heading, fontsize=12)
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    own_model.add_model(parser, "cnn_robust")
    command.option(parser, "--samples", command.path, None, "images (default: the test digits)")
    eps = "largest change of a pixel (default: 0.3 for our CNNs, for colour 8/255, otherwise 0.1)"
    command.option(parser, "--eps", command.pixel_size, None, eps)
    command.add_count(parser, "--count", "how many images (of a file: drawn)", 1000)
    command.add_seed(parser, "random starts, squares, noise")
    command.add_output(parser, "the figure to write (default: img/robustness_{model}.png)")
    args = parser.parse_args(argv)
    figure = args.output or files.IMG / f"robustness_{own_model.stem(args.model)}.png"
    plots.check_output(figure, args)
    written = [figure, files.check_output(figure.with_suffix(".json"), args)]
    own = isinstance(args.model, Path)
    source = None if own else mnist.load(mnist.source_of(args.model))
    network, model, judge, x, y, _ = own_model.opened(
        args, args.count, full_test_set=args.samples is None
    )
    eps = args.eps
    if eps is None:
        eps = OWN_EPS[x.shape[3:] == (3,)] if own else mnist.trained_eps(args.model)

    from method1_noise_optimization.nearest import nearest
    from method2_fgsm.robust import bounds, ensemble

    with_gradient, without = ensemble.attacks(source)
    every = with_gradient | without
    clean = mnist.classify(judge, x) == y
    if not clean.any():
        raise Failure(
            f"{mnist.title(args.model)} misclassifies all {len(x)} images: nothing is "
            "left to attack; check the labels and --pixels"
        )
    right, near, standing = (x[clean], y[clean]), np.zeros(len(x)), {}
    x_adv, smallest = ensemble.smallest(model, *right, judge=judge)
    near[clean] = smallest
    for name in tqdm(every, disable=None, unit="attack"):
        if name == ensemble.MANY_STEPS:  # just done
            standing[name] = near > eps
        else:
            how = {"judge": judge, "seed": args.seed}
            standing[name] = ensemble.withstood(model, x, y, eps, every[name], **how)
    rows = summary(clean, standing)
    _, l2 = nearest(model, *(part[:FEW] for part in right), "l2", judge=judge)
    left = np.all(list(standing.values()), axis=0)
    falls = np.where(left, near, np.minimum(near, eps))
    try:
        proven, notes = bounds.proven(model, x, y, eps), []
    except ValueError as error:
        notes = [f"nothing can be proven: {error}"]
    else:
        rows["proven"] = share(proven)
        ensemble.check_proof(np.where(proven, eps, np.nan), falls)
    masked = ensemble.masked(*({k: standing[k] for k in kind} for kind in (with_gradient, without)))

    print(f"{mnist.title(args.model)}, eps {eps:.4g}: {len(x)} images")
    print(table(rows))
    medians = {"smallest epsilon, median": smallest, "smallest |r|_2, median": l2}
    medians = {name: float(np.median(sizes)) for name, sizes in medians.items()}
    for name, value in medians.items():
        print(f"{name:36}{value:10.4f}")
    for line in [*notes, *(f"warning: {line}" for line in masked)]:
        print(line)

    epsilons, known = np.minimum(EPSILONS * eps, 1), {"falls": falls, "stands": eps * left}
    stands = ensemble.withstood_along(
        model, source, x, y, epsilons, **known, judge=judge, seed=args.seed
    )
    curves = {
        "one sign step (FGSM)": ensemble.sign_step_curve(model, x, y, epsilons, judge=judge),
        "many steps": np.array([(near > e).mean() for e in epsilons]),
        "all attacks": stands.mean(axis=1),
    }
    along = {"eps": epsilons} | curves
    report = {
        **network.settings(),
        "eps": eps,
        "count": len(x),
        "seed": args.seed,
        "rows": rows,
        "masked gradients": masked,
        **{name: value if np.isfinite(value) else None for name, value in medians.items()},
        "curves": {name: values.tolist() for name, values in along.items()},
        "versions": results.versions(),
    }
    hit = np.isfinite(smallest)
    images = x[clean][hit], x_adv[hit], smallest[hit]
    title = f"{mnist.title(args.model)}: accuracy of {len(x):,} images under attack"
    drawn = draw(model, *images, network.label, epsilons, curves, eps, title)
    plots.save(drawn, figure)
    with files.replacing(written[1]) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return written


if __name__ == "__main__":
    command.run(main)
