"""Ten handwritten 2s become 6s: original | sign of the gradient | adversarial image.

    python method2_fgsm/two_to_six.py --model softmax
    python method2_fgsm/two_to_six.py --model cnn --source 3 --target 8

One step of the targeted fast gradient sign method, with the smallest epsilon that each image
needs plus the small margin that lifts the confidence in the target above 50 %.  An image that
no epsilon lifts so far is shown at the smallest epsilon that makes the target the most likely
digit.  `--margin` fixes the margin, `--eps` one epsilon for all.  (Goodfellow et al. 2015,
section 4.)

reads   common/mnist.npz, common/weights/{model}.weights.h5
writes  img/2s_{model}.png (for other digits img/3s_{model}.png, img/3s_as_8s_{model}.png
        and so on)
"""

from pathlib import Path

import numpy as np

from common import command, files, models, plots
from method2_fgsm import source_to_target


def draw(x, sign, x_adv, before, after, eps, source, target, title):
    """The figure: five rows and two bands of columns of original | sign | adversarial."""
    bands = min(2, len(x))
    rows = -(-len(x) // bands)
    fig = plots.figure(7 * bands + 0.4, 2.5 * rows + 1.6, title)
    axes = fig.subplots(rows, 3 * bands, squeeze=False)
    for ax in axes.flat:
        ax.set_visible(False)
    for image in range(len(x)):
        band, row = divmod(image, rows)
        original, step, adversarial = axes[row, 3 * band : 3 * band + 3]
        for ax in (original, step, adversarial):
            ax.set_visible(True)
        plots.digit(original, x[image], confidences(before[image], source, target))
        drawn = plots.noise(step, sign[image], 1, f"ε = {eps[image]:.3f}")
        plots.digit(adversarial, x_adv[image], confidences(after[image], source, target))
        if row == 0:
            for ax, heading in (
                (original, "original"),
                (step, f"sign(∇J(x, {target}))"),
                (adversarial, "adversarial"),
            ):
                ax.set_title(f"{heading}\n{ax.get_title()}")
    bar = fig.colorbar(
        drawn, ax=axes, shrink=0.35, aspect=30, pad=0.01, ticks=[-1, 0, 1], location="bottom"
    )
    bar.set_label("sign of the gradient; the step goes against it")
    return fig


def confidences(probabilities, source, target):
    """The two confidences as a title, in percent."""
    return f"{source}: {probabilities[source]:.1%}   {target}: {probabilities[target]:.1%}"


def main(argv=None):
    parser = command.Parser(__doc__)
    source_to_target.add_arguments(parser)
    step = parser.add_mutually_exclusive_group()
    step.add_argument(
        "--margin",
        type=command.pixel_size,
        help="what is added to the smallest epsilon, in pixel units "
        "(default: what brings the confidence in the target above 50 %%)",
    )
    step.add_argument(
        "--eps",
        type=command.pixel_size,
        help="one epsilon for all images, in pixel units, instead of the smallest",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="the figure to write (default: img/{source}s_{model}.png, "
        "for another target than 6 img/{source}s_as_{target}s_{model}.png)",
    )
    args = parser.parse_args(argv)
    source_to_target.check_arguments(parser, args)
    seen = "" if args.target == 6 else f"_as_{args.target}s"
    output = args.output or files.IMG / f"{args.source}s{seen}_{args.model}.png"
    files.check_output(output)

    model = models.load(args.model)

    from method2_fgsm import fgsm

    if args.eps is None:
        choice = source_to_target.choose(model, args.source, args.target, args.count)
        x, indices, eps = choice.x, choice.indices, choice.eps
        if args.margin is None:
            targets = np.full(len(x), args.target)
            sure, _ = fgsm.smallest_eps(model, x, targets, confidence=0.5)
            eps = np.where(np.isnan(sure), eps, sure)
            how = "the smallest ε with over 50 % where there is one"
        else:
            eps = np.minimum(eps + np.float32(args.margin), 1)
            how = f"the smallest ε + {args.margin:g}"
        # Where no epsilon reaches the target, the image is shown as it is.
        eps = np.nan_to_num(eps)
    else:
        x, indices = source_to_target.correctly_classified(model, args.source, args.count)
        x, indices = x[: args.count], indices[: args.count]
        eps = np.full(len(x), args.eps, np.float32)
        how = f"ε = {args.eps:g}"

    sign = fgsm.gradient_sign(model, x, np.full(len(x), args.target)).numpy()
    x_adv = np.clip(x - eps[:, np.newaxis, np.newaxis] * sign, 0, 1)
    before = models.softmax(models.predict(model, x))
    after = models.softmax(models.predict(model, x_adv))

    title = (
        f"{models.title(args.model)}: handwritten {args.source}s seen as {args.target}s, "
        f"one sign step, {how}\n"
        f"confidence in {args.source} and in {args.target} above each image"
    )
    fig = draw(x, sign, x_adv, before, after, eps, args.source, args.target, title)
    plots.save(fig, output)

    source, target = args.source, args.target
    print(
        f"test image      eps   P({source}) before   P({target}) before   "
        f"P({source}) after   P({target}) after   predicted"
    )
    for i in range(len(x)):
        print(
            f"{indices[i]:10d}   {eps[i]:6.4f}   {before[i, source]:11.2%}   "
            f"{before[i, target]:11.2%}   {after[i, source]:10.2%}   {after[i, target]:10.2%}   "
            f"{after[i].argmax():9d}"
        )
    sure = (after[:, target] > 0.5).sum()
    print(f"{sure} of {len(x)} are seen as a {target} with over 50 % confidence")
    if args.eps is None:
        print(source_to_target.reach(choice, source, target))
    print(f"wrote {files.show(output)}")
    return [output]


if __name__ == "__main__":
    command.run(main)
