"""Compute the exact answers for softmax regression, and how near the attacks come to them.

    python logreg_softmax/exact.py
    python logreg_softmax/exact.py --limit 5000

Tables show how far above the exact optima the methods end: the smallest L2 noise inside the box
towards a target, the smallest epsilon of one clipped sign step, and that of any noise; the fewest
pixels for any other answer, and of 50 digits towards a target.  The figure and the last table show
why one noise pattern breaks every 2: the gradient of a linear model for 2 against 6 is W_6 - W_2 at
every image.

reads   common/mnist.npz, common/weights/softmax.weights.h5, common/5k_samples.npz
writes  img/exact_softmax.png, for other digits img/exact_softmax_{source}_to_{target}.png
"""

import numpy as np
from tqdm import tqdm

from common import command, data, files, plots
from common.networks import mnist
from logreg_softmax.fewest_pixels import fewest_pixels, fewest_to_target
from logreg_softmax.linear_programme import constraints, smallest_linf
from method1_noise_optimization import attack

STEPS = 100  # of Newton's method, at most
FEW = 50  # digits of the mixed-integer programme
MANY_STEPS = 500  # of the search over all noise


def smallest_noise(weights, bias, x, y_target, *, lead=0.0, batch_size=500):
    """The smallest L2 noise with which a linear classifier sees each image as its target.

        minimise |r|   subject to   z_t(x + r) - z_k(x + r) ≥ lead for k ≠ t,   0 ≤ x + r ≤ 1

    weights (d, classes), bias (classes,), x (n, ...) with d pixels in [0, 1], y_target (n,).
    Returns (noise, bound), float64 like x and (n,): bound is a lower bound of |r|, from the dual
    of this quadratic programme, and equals |noise| up to rounding.  noise meets the constraints up
    to rounding.  Where no image in the box will do, noise is NaN and bound infinite.
    """
    import tensorflow as tf

    from common.search.box_projection import project

    flat = x.reshape(len(x), -1).astype(np.float64)
    noise, bound = np.empty_like(flat), np.empty(len(x))
    for start in range(0, len(x), batch_size):
        batch = slice(start, start + batch_size)
        slopes, offsets = constraints(weights, bias, y_target[batch])
        c, A, b = map(tf.constant, (flat[batch], slopes, lead - offsets))
        p, _, dual = project(c, A, b, tf.zeros_like(b), STEPS)
        noise[batch] = p.numpy() - flat[batch]
        bound[batch] = np.sqrt(2 * np.maximum(dual.numpy(), 0))
    # No two points of the box are further apart than this.
    none = bound > np.sqrt(flat.shape[1])
    noise[none], bound[none] = np.nan, np.inf
    return noise.reshape(x.shape), bound


def smallest_eps(weights, bias, x, y_target, sign, *, lead=0.0):
    """The smallest eps with which a linear classifier sees clip(x - eps * sign) as the target.

    weights (d, classes), bias (classes,), x and sign (n, ...) with d pixels, y_target (n,).
    Returns eps (n,) float64, NaN where no eps from 0 to 1 will do: the first root of a piecewise
    linear function.  Between two of the epsilons at which a pixel reaches 0 or 1, every lead
    z_t - z_k is a line; the leads at those epsilons come from running sums over the pixels in the
    order in which they arrive.
    """
    x, sign = (part.reshape(len(x), -1).astype(np.float64) for part in (x, sign))
    eps, lines = np.full(len(x), np.nan), zip(*constraints(weights, bias, y_target), strict=True)
    for i, (slopes, offsets) in enumerate(lines):
        stop = np.where(sign[i] > 0, x[i], np.where(sign[i] < 0, 1 - x[i], 0))
        order = np.argsort(stop, kind="stable")
        knots = np.concatenate([[0.0], stop[order], [1.0]])
        widths, zero = np.diff(knots), np.zeros((1, len(slopes)))
        # rate[j]: how fast the leads change after the first j pixels have stopped.
        moving = -sign[i, order, np.newaxis] * slopes.T[order]
        rate = moving.sum(axis=0) - np.cumsum(np.concatenate([zero, moving]), axis=0)
        rises = np.concatenate([zero, rate * widths[:, np.newaxis]])
        starts = slopes @ x[i] + offsets - lead + np.cumsum(rises, axis=0)[:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            root = -starts / rate
        # Inside a piece, a rising line is at least zero from its root on, a falling one up to it.
        since = np.where(starts >= 0, 0, np.where(rate > 0, root, np.inf)).max(axis=1)
        until = np.where(rate < 0, np.where(starts >= 0, root, -np.inf), np.inf).min(axis=1)
        good = np.flatnonzero(since <= np.minimum(until, widths) + 1e-15)
        if len(good):
            eps[i] = knots[good[0]] + since[good[0]]
    return eps


@plots.our_style()
def draw(difference, x, sign, source, target, title):
    """The figure: W_target - W_source at the left, ten images and their steps at the right."""
    fig = plots.figure(15, 6.4, title)
    left, right = fig.subfigures(1, 2, width_ratios=(1, 2.6))
    ax, below = left.subplots(), {"location": "bottom", "pad": 0.02}
    same = f"W_{target} − W_{source}, the same for every image"
    drawn = plots.noise(ax, difference, np.abs(difference).max(), same)
    left.colorbar(drawn, ax=ax, shrink=0.8, **below).set_label("logits per pixel unit")
    axes = right.subplots(4, -(-len(x) // 2), squeeze=False)
    for i, (image, pattern) in enumerate(plots.stacked_pairs(axes, len(x))):
        plots.digit(image, x[i])
        same = (sign[i] == np.sign(difference))[difference != 0].mean()
        steps = plots.noise(pattern, sign[i], 1, f"same sign: {same:.0%}")
    bar = right.colorbar(steps, ax=axes, shrink=0.35, aspect=30, ticks=[-1, 0, 1], **below)
    bar.set_label(f"below each {source}: sign step towards {target}, red is up, blue is down")
    return fig


def print_optima(model, x, y, y_target):
    """Five tables: the exact optimum, what certifies it, and how far above it the methods end."""
    from method2_fgsm import fgsm
    from method2_fgsm.smallest_eps import smallest_eps as search

    weights, bias = model.get_weights()
    noise, bound = smallest_noise(weights, bias, x, y_target)
    optimum = attack.sizes(noise)
    logits = (x + noise).reshape(len(x), -1) @ weights.astype(np.float64) + bias
    violation = logits.max(axis=1) - logits[np.arange(len(x)), y_target]
    print(f"largest duality gap, relative to |r|_2      {np.abs(optimum / bound - 1).max():.1e}")
    print(f"largest violation of a constraint (logits)  {violation.max():.1e}")
    print_table("|r|_2", "exact optimum", optimum)
    for method in tqdm(("sgd", "lbfgs", "minimal"), disable=None):
        noise = attack.find_noise(model, x, y_target, method=method)
        print_row(method, attack.sizes(noise), optimum, attack.reached(model, x, noise, y_target))

    sign = fgsm.gradient_signs(model, x, y_target)
    first_root = smallest_eps(weights, bias, x, y_target, sign)
    one_step, _ = search(model, x, y_target)
    print_table("smallest epsilon", "exact first root", first_root)
    print_row("smallest_eps", one_step, first_root)

    optimum, _, bound = smallest_linf(weights, bias, x, y_target)
    many_steps, _ = search(model, x, y_target, steps=MANY_STEPS)
    print_table("|r|_inf, all noise", "exact optimum", optimum)
    print_row("one sign step", one_step, optimum)
    print_row(f"{MANY_STEPS} steps", many_steps, optimum)
    print(f"largest duality gap, relative to eps        {np.nanmax(optimum / bound - 1):.1e}")

    def print_fewest(title, optimum, x, y, targeted):
        noise = attack.find_noise(model, x, y, method="fewest", targeted=targeted)
        print_table(title, "exact optimum", optimum)
        hit = attack.reached(model, x, noise, y, targeted=targeted)
        print_row("fewest", attack.counts(noise), optimum, hit)

    print_fewest("pixels, any answer", fewest_pixels(weights, bias, x, y), x, y, targeted=False)
    few, targets = x[:FEW], y_target[:FEW]
    _, bound = fewest_to_target(weights, bias, few, targets)
    print_fewest("pixels, to target", bound, few, targets, targeted=True)


def print_table(title, name, optimum):
    """The head of a table, and the row of the optimum (n,), which is NaN where there is none."""
    exists = np.isfinite(optimum)
    print(f"\n{title:20}reached      mean  above optimum   worst image")
    print(f"{name:20}{exists.mean():7.1%}{optimum[exists].mean():10.4f}")


def print_row(name, size, optimum, reached=True):
    """By how much sizes (n,) exceed the optimum: their mean, and the worst of the images."""
    found = np.isfinite(size) & reached
    size, optimum = size[found], optimum[found]
    excess = f"{size.mean() / optimum.mean() - 1:15.3%}{(size / optimum).max() - 1:14.2%}"
    tqdm.write(f"{name:20}{found.mean():7.1%}{size.mean():10.4f}{excess}")


def main(argv=None):
    parser = command.Parser(__doc__)
    command.option(parser, "--source", command.digit, 2, "digit of the figure")
    command.option(parser, "--target", command.digit, 6, "its target")
    data.add_samples(parser)
    command.add_count(parser, "--limit", "digits at most", 500)
    command.add_seed(parser, "of the random targets")
    command.add_output(parser, "the figure to write (default: see above)")
    args = parser.parse_args(argv)
    source, target = args.source, args.target
    if source == target:
        parser.error(f"--source and --target are both {source}: choose two digits")
    name = "exact_softmax" + ("" if (source, target) == (2, 6) else f"_{source}_to_{target}")
    output = plots.check_output(args.output or files.IMG / f"{name}.png", args)
    x, y, _ = data.load_samples(args.samples)
    model, where = mnist.load("softmax"), files.show(args.samples)
    sources = x[mnist.correctly_classified([model], x, y, where, source=source)]
    right = mnist.correctly_classified([model], x, y, where)[: args.limit]

    print(f"softmax regression, {len(right)} digits, random targets, noise in pixel units")
    print_optima(model, x[right], y[right], attack.random_targets(y[right], args.seed))

    from method2_fgsm import fgsm

    weights = model.get_weights()[0].astype(np.float64)
    difference = (weights[:, target] - weights[:, source]).reshape(28, 28)
    pattern = np.sign(difference).astype(np.float32)
    first = sources[:10]
    steps = -fgsm.gradient_signs(model, first, np.full(len(first), target))
    title = f"softmax regression: the step from {source} to {target} is one pattern"
    plots.save(draw(difference, first, steps, source, target, title), output)

    name, same = f"W_{target} - W_{source}", (steps == pattern)[:, difference != 0].mean()
    print(f"\nsteps {source} to {target}: {same:.1%} of the signs are those of {name}")
    print(f"\nsign({name}) for each of {len(sources)} {source}s")
    rows = []
    for eps in (0.1, 0.2, 0.3):
        seen = mnist.classify(model, np.clip(sources + np.float32(eps) * pattern, 0, 1))
        shares = (seen == target).mean(), (seen != source).mean()
        rows.append((f"{eps:.1f}", *map("{:.1%}".format, shares)))
    print(command.table(("eps", f"seen as a {target}", f"no longer a {source}"), rows))
    return [output]


if __name__ == "__main__":
    command.run(main)
