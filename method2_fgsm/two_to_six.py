"""Turn ten handwritten 2s into 6s by one sign step: original | step | adversarial image.

    python method2_fgsm/two_to_six.py --model softmax
    python method2_fgsm/two_to_six.py --model cnn --source 3 --target 8

One targeted step (FGSM, Goodfellow et al. 2015, section 4) with the smallest epsilon that makes the
network over 50 % sure of the target, or else with the smallest that puts the target ahead.

reads   common/mnist.npz or --samples, common/weights/{model}.weights.h5 or a .keras file
writes  img/2s_{model}.png; other digits img/3s_as_8s_{model}.png; with --samples its name is added
"""

import numpy as np

from common import command, files, plots
from common.networks import mnist, own_model
from method2_fgsm import source_to_target


@plots.our_style()
def draw(x, steps, x_adv, before, after, eps, pair, title):
    """The figure: five rows and two bands of columns of original | step | adversarial.

    steps: like x, of -1, 0 and 1.  before, after: the confidences (n, 2) in the two classes.
    """
    bands = min(2, len(x))
    rows = -(-len(x) // bands)
    fig = plots.figure(7 * bands + 0.4, 2.5 * rows + 1.6, title)
    axes = fig.subplots(rows, 3 * bands, squeeze=False)
    triples = axes.reshape(rows, bands, 3).swapaxes(0, 1).reshape(-1, 3)
    plots.hide(triples[len(x) :])
    for image, (original, step, adversarial) in enumerate(triples[: len(x)]):
        plots.digit(original, x[image], confidences(before[image], pair))
        drawn = plots.noise(step, steps[image], 1, f"ε = {eps[image]:.3f}")
        plots.digit(adversarial, x_adv[image], confidences(after[image], pair))
        if image % rows == 0:
            headings = "original", f"−sign(∇J(x, {pair.target_name}))", "adversarial"
            for ax, heading in zip((original, step, adversarial), headings, strict=True):
                ax.set_title(f"{heading}\n{ax.get_title()}")
    key = f"sign step towards {pair.target_name}, in units of ε"
    if x.shape[3:] == (3,):
        fig.supxlabel(f"{key} (of red, green and blue: bright up, grey 0, dark down)", fontsize=11)
        return fig
    bar = fig.colorbar(
        drawn, ax=axes, shrink=0.35, aspect=30, pad=0.01, ticks=[-1, 0, 1], location="bottom"
    )
    bar.set_label(f"{key}: red is up, blue is down")
    return fig


def confidences(shares, pair):
    """The two confidences as a title, in percent."""
    return f"{pair.source_name}: {shares[0]:.1%}   {pair.target_name}: {shares[1]:.1%}"


def main(argv=None):
    parser = command.Parser(__doc__)
    eps = "one epsilon for all images, in pixel units, instead of the smallest"
    command.option(parser, "--eps", command.pixel_size, None, eps)
    command.add_output(parser, "the figure to write (default: see above)")
    args = source_to_target.parse(parser, argv)
    name = f"{files.plain(args.source)}s"
    name += "" if args.target == "6" else f"_as_{files.plain(args.target)}s"
    name += f"_{own_model.stem(args.model)}"
    name += "" if args.samples is None else f"_{args.samples.stem}"
    output = plots.check_output(args.output or files.IMG / f"{name}.png", args)

    network, model, judge, pair, x, indices = source_to_target.read(args)

    from method2_fgsm import fgsm
    from method2_fgsm.smallest_eps import smallest_eps

    if args.eps is not None:
        x, indices = x[: args.count], indices[: args.count]
        eps, step = np.full(len(x), args.eps, np.float32), f"ε = {args.eps:g}"
    else:
        choice = source_to_target.choose(model, x, indices, pair, args.count)
        x, indices = choice.x, choice.indices
        sure, _ = smallest_eps(model, x, np.full(len(x), pair.target), confidence=0.5)
        # Where no epsilon reaches the target, the image is shown as it is.
        eps = np.nan_to_num(np.where(np.isnan(sure), choice.eps, sure))
        goal = pair.target_name
        step = f"smallest ε with over 50 % for the {goal}, else with the {goal} ahead"
    steps = -fgsm.gradient_signs(model, x, np.full(len(x), pair.target))
    x_adv = np.clip(x + (eps * steps.T).T, 0, 1)
    seen, logits = own_model.answers(model, judge, x_adv)
    logits = mnist.predict(model, x), logits
    before, after = (mnist.softmax(z)[:, [pair.source, pair.target]] for z in logits)

    title = (
        f"{mnist.title(args.model)}: {'' if network.pixels else 'handwritten '}{pair.sources} "
        f"seen as {pair.targets}, one sign step, {step}\n"
        f"above: confidence in {pair.source_name} and in {pair.target_name}; ε in pixel units"
    )
    plots.save(draw(x, steps, x_adv, before, after, eps, pair, title), output)

    rows = [
        (index, f"{size:.4f}", *(f"{p:.2%}" for p in (*b, *a)), network.label(label))
        for index, size, b, a, label in zip(indices, eps, before, after, seen, strict=True)
    ]
    when = [f"P({name}) {when}" for when in ("before", "after") for name in pair[2:4]]
    print(command.table(("image", "eps", *when, "predicted"), rows))
    sure = (after[:, 1] > 0.5).sum()
    print(f"{sure} of {len(x)} are seen as a {pair.target_name} with over 50 % confidence")
    if args.eps is None:
        print(choice.reach)
    return [output]


if __name__ == "__main__":
    command.run(main)
