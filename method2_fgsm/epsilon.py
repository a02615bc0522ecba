"""Draw the class scores against epsilon, along the line of the sign step.

    python method2_fgsm/epsilon.py --model softmax
    python method2_fgsm/epsilon.py --model mine.keras --samples mine.npz --source cat --target dog

For test images of a 2, their logits along x - eps * sign(gradient of the loss for the label 6), raw
and clipped to [0, 1], after Goodfellow et al. 2015, figure 4.  Positive eps leads towards the 6.

reads   common/mnist.npz or --samples, common/weights/{model}.weights.h5 or a .keras file
writes  img/epsilon_{model}.png; other digits, and the name of --samples, are added to the name
"""

import numpy as np

from common import command, files, plots
from common.command import Failure
from common.networks import mnist, own_model
from method2_fgsm import source_to_target

EPS = np.linspace(-1, 1, 101, dtype=np.float32)


def scores(model, x, direction, eps, *, clip):
    """Logits (n, k, classes) along x + eps * direction, both (n, ...), eps (k,) in pixel units."""
    line = x[:, np.newaxis] + np.multiply.outer(eps, direction).swapaxes(0, 1)
    if clip:
        line = line.clip(0, 1)
    logits = mnist.predict(model, line.reshape(-1, *x.shape[1:]))
    return logits.reshape(len(x), len(eps), -1)


def bend(eps, scores):
    """How far scores (n, k, classes) are from the straight line between their ends: logits (n,)."""
    share = ((eps - eps[0]) / (eps[-1] - eps[0]))[:, np.newaxis]
    chord = scores[:, :1] * (1 - share) + scores[:, -1:] * share
    return np.abs(scores - chord).max(axis=(1, 2))


@plots.our_style()
def draw(eps, raw, clipped, choice, pair, label, kind, key, title):
    """The figure: two rows of panels for every five images, raw above and clipped below.

    raw, clipped: scores (n, eps, classes).  label(index): what a class is called.
    """
    columns = min(5, len(raw))
    bands = -(-len(raw) // columns)
    fig = plots.figure(3 * columns + 1.2, 5.6 * bands + 0.8, title)
    axes = fig.subplots(2 * bands, columns, sharex=True, sharey="row", squeeze=False)
    pairs = plots.stacked_pairs(axes, len(raw))
    for image, smallest in enumerate(choice.eps):
        upper, lower = pairs[image]
        for ax, scores in (upper, raw), (lower, clipped):
            ax.tick_params(labelbottom=True)
            for index, score in enumerate(scores[image].T):
                look = {"color": plots.COLOURS[index], "lw": 2.6 if index in pair[:2] else 1.2}
                ax.plot(eps, score, plots.LINE_STYLES[index], label=label(index), **look)
        if image % columns == 0:
            upper.set_ylabel("score (logit)\nraw")
            lower.set_ylabel("score (logit)\nclipped to [0, 1]")
        upper.set_title(f"{kind} {choice.indices[image]}")
        lower.set_xlabel("ε (pixel units)")
        if np.isfinite(smallest):
            lower.axvline(smallest, color="black", linewidth=1.2, linestyle=":")
            lower.set_title(f"first {pair.target_name} at ε = {smallest:.3f}")
        else:
            lower.set_title(f"never {pair.target_name}")
    fig.legend(handles=lower.lines[: raw.shape[-1]], title=key, loc="outside right center")
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    command.add_output(parser, "the figure to write (default: see above)")
    args = source_to_target.parse(parser, argv)
    pair = args.source, args.target
    digits = "" if pair == ("2", "6") else "_" + "_to_".join(map(files.plain, pair))
    digits += "" if args.samples is None else f"_{args.samples.stem}"
    name = f"epsilon_{own_model.stem(args.model)}{digits}.png"
    output = plots.check_output(args.output or files.IMG / name, args)

    network, model, _, pair, x, indices = source_to_target.read(args)
    if network.classes > len(plots.COLOURS):
        raise Failure(f"{network.model} has {network.classes} classes, too many lines: at most ten")
    choice = source_to_target.choose(model, x, indices, pair, args.count)
    kind = "test image" if args.samples is None else "image"

    from method2_fgsm import fgsm

    direction = -fgsm.gradient_signs(model, choice.x, np.full(len(choice.x), pair.target))
    raw, clipped = (scores(model, choice.x, direction, EPS, clip=clip) for clip in (False, True))

    key, scored, one = "digit", "ten digits", "a handwritten"
    if network.pixels:
        key, scored, one = "class", "its classes", "an image of"
    line = f"x − ε sign(∇J(x, {pair.target_name})), x {one} {pair.source_name}"
    line += f" (ε > 0: towards {pair.target_name})"
    title = f"{mnist.title(args.model)}: scores of {scored} along {line}"
    plots.save(draw(EPS, raw, clipped, choice, pair, network.label, kind, key, title), output)

    rows = zip(choice.indices, choice.eps, bend(EPS, raw), strict=True)
    rows = [(index, f"{eps:.4f}", f"{distance:.4f}") for index, eps, distance in rows]
    titles = kind, "smallest eps", "furthest from a straight line (logits)"
    print(command.table(titles, rows))
    print(choice.reach)
    if np.isfinite(choice.eps).any():
        print(f"median smallest eps {np.nanmedian(choice.eps):.4f}")
    return [output]


if __name__ == "__main__":
    command.run(main)
