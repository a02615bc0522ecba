"""Class scores against epsilon: what one straight line through a classifier looks like.

    python method2_fgsm/epsilon.py --model softmax

For ten test images of a 2, the sign of the loss gradient for the label 6 is taken once, at the
image x, and the ten logits are drawn along x + eps * sign for eps from -1 to 1.  Negative
epsilon decreases the loss and so leads towards 6.  (Goodfellow et al. 2015, figure 4, with a
target.)

Each image has two panels.  Above, the raw line: softmax regression is linear, so its ten scores
are ten straight lines.  Below, the line is clipped to [0, 1], which keeps the image valid; the
dotted line marks the smallest epsilon at which 6 is predicted.

With --steps above 1 the line leads through the noise that so many steps find instead
(smallest_eps.py), scaled to at most epsilon a pixel: a network that bends away from the sign
step's line seldom bends away from this one.

reads   common/mnist.npz or --samples, common/weights/{model}.weights.h5
writes  img/epsilon_{model}.png, for other digits img/epsilon_{model}_{source}_to_{target}.png;
        with --steps _steps and with --samples the name of that file is added
"""

import numpy as np

from common import command, files, models, plots
from method2_fgsm import source_to_target

EPS = np.linspace(-1, 1, 101, dtype=np.float32)


def scores(model, x, direction, eps, *, clip):
    """Logits (n, k, 10) along x + eps * direction, both (n, 28, 28), eps (k,) in pixel units."""
    line = x[:, np.newaxis] + eps[:, np.newaxis, np.newaxis] * direction[:, np.newaxis]
    if clip:
        line = line.clip(0, 1)
    logits = models.predict(model, line.reshape(-1, *x.shape[1:]))
    return logits.reshape(len(x), len(eps), -1)


def bend(eps, scores):
    """How far scores (n, k, 10) are from the straight line between their ends: logits (n,)."""
    share = ((eps - eps[0]) / (eps[-1] - eps[0]))[:, np.newaxis]
    chord = scores[:, :1] * (1 - share) + scores[:, -1:] * share
    return np.abs(scores - chord).max(axis=(1, 2))


def draw_scores(ax, eps, scores, thick):
    """Draw the ten lines of one image, scores (k, 10), those of the digits `thick` in bold."""
    ax.tick_params(labelbottom=True)
    for digit in range(10):
        style, width = plots.LINE_STYLES[digit], 2.6 if digit in thick else 1.2
        ax.plot(eps, scores[:, digit], style, color=plots.COLOURS[digit], lw=width, label=digit)


@plots.our_style()
def draw(eps, raw, clipped, choice, source, target, title):
    """The figure: two rows of panels for every five images, raw above and clipped below."""
    columns = min(5, len(raw))
    bands = -(-len(raw) // columns)
    fig = plots.figure(3 * columns + 1.2, 5.6 * bands + 0.8, title)
    axes = fig.subplots(2 * bands, columns, sharex=True, sharey="row", squeeze=False)
    pairs = axes.reshape(bands, 2, columns).swapaxes(1, 2).reshape(-1, 2)
    for ax in pairs[len(raw) :].flat:
        ax.set_visible(False)
    for image, smallest in enumerate(choice.eps):
        upper, lower = pairs[image]
        draw_scores(upper, eps, raw[image], (source, target))
        draw_scores(lower, eps, clipped[image], (source, target))
        if image % columns == 0:
            upper.set_ylabel("score (logit)\nraw")
            lower.set_ylabel("score (logit)\nclipped to [0, 1]")
        upper.set_title(f"{choice.kind} {choice.indices[image]}")
        lower.set_xlabel("ε (pixel units)")
        if np.isfinite(smallest):
            lower.axvline(-smallest, color="black", linewidth=1.2, linestyle=":")
            lower.set_title(f"first {target} at ε = −{smallest:.3f}")
        else:
            lower.set_title(f"never {target}")
    fig.legend(handles=lower.lines[:10], title="digit", loc="outside right center")
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    command.add_output(
        parser,
        "the figure to write (default: img/epsilon_{model}.png, for "
        "other digits than 2 and 6 img/epsilon_{model}_{source}_to_{target}.png)",
    )
    args = source_to_target.parse(parser, argv)
    digits = "" if (args.source, args.target) == (2, 6) else f"_{args.source}_to_{args.target}"
    digits += "" if args.steps == 1 else "_steps"
    digits += "" if args.samples is None else f"_{args.samples.stem}"
    output = plots.check_output(
        args.output or files.IMG / f"epsilon_{args.model}{digits}.png", args
    )

    model = models.load(args.model)
    choice = source_to_target.choose(model, args.source, args.target, args.count, args.samples)

    if args.steps == 1:
        from method2_fgsm import fgsm

        direction = fgsm.gradient_signs(model, choice.x, np.full(len(choice.x), args.target))
        line = f"x + ε sign(∇J(x, {args.target}))"
    else:
        from method2_fgsm.smallest_eps import smallest_eps

        targets = np.full(len(choice.x), args.target)
        eps, x_adv = smallest_eps(model, choice.x, targets, steps=args.steps)
        choice = choice._replace(eps=eps)
        direction = (choice.x - x_adv) / np.fmax(eps, 1e-6)[:, np.newaxis, np.newaxis]
        line = f"x − ε r/|r|∞, r the noise of {args.steps} steps towards {args.target}"
    raw = scores(model, choice.x, direction, EPS, clip=False)
    clipped = scores(model, choice.x, direction, EPS, clip=True)

    title = (
        f"{models.title(args.model)}: scores of ten digits along {line}, "
        f"x a handwritten {args.source}"
    )
    plots.save(draw(EPS, raw, clipped, choice, args.source, args.target, title), output)

    print(f"{choice.kind:>10}   smallest eps   furthest from a straight line (logits)")
    for index, smallest, distance in zip(choice.indices, choice.eps, bend(EPS, raw), strict=True):
        print(f"{index:10d}   {smallest:12.4f}   {distance:12.4f}")
    if args.steps == 1:
        print(source_to_target.reach(choice, args.source, args.target))
    if np.isfinite(choice.eps).any():
        print(f"median smallest eps {np.nanmedian(choice.eps):.4f}")
    return [output]


if __name__ == "__main__":
    command.run(main)
