"""Draw how fast accuracy falls as epsilon grows, for the three models on all test digits.

    python method2_fgsm/accuracy_vs_epsilon.py

One untargeted sign step (FGSM); at epsilon 0.25 beside Goodfellow et al. (2015), section 4.

reads   common/mnist.npz, common/weights/{softmax,mlp,cnn}.weights.h5
writes  img/accuracy_vs_epsilon.png
"""

import numpy as np
from tqdm import tqdm

from common import command, data, files, plots
from common.networks import mnist

EPS = np.round(np.arange(0, 0.301, 0.025), 3)
PUBLISHED_EPS = 0.25
# Goodfellow et al. (2015), section 4: accuracy and mean confidence on MNIST at eps 0.25.
PUBLISHED = (
    ("published: shallow softmax", 0.001, 0.793),
    ("published: maxout network", 0.106, 0.976),
)


def accuracy_at(model, x, y, eps, *, source=None):
    """Accuracy and mean confidence in the wrong label at each eps: two float64 (k,).

    Untargeted, x_adv = clip(x + eps * sign(∇ₓ J(x, y))), with the sign taken once.
    x: float32 (n, 28, 28) in [0, 1].  y: integers (n,).  eps: (k,) in pixel units.
    source: the model whose gradient it is, if not `model` itself.
    """
    from method2_fgsm.fgsm import gradient_signs

    sign = gradient_signs(model if source is None else source, x, y)
    logits = (mnist.predict(model, np.clip(x + e * sign, 0, 1)) for e in eps)
    errors, confidences = np.array([wrong_label_confidence(z, y) for z in logits]).T
    return 1 - errors, confidences


def wrong_label_confidence(logits, y, y_pred=None):
    """Error rate, and mean confidence in the wrong label, as Goodfellow et al. report them.

    logits (n, classes), y (n,) true labels, y_pred (n,) the answers, if they are not those of the
    logits.  The confidence is the largest probability, averaged over those images that are
    misclassified; NaN where none is.
    """
    wrong = (logits.argmax(axis=1) if y_pred is None else y_pred) != y
    confidence = mnist.softmax(logits.astype(np.float64)).max(axis=1)
    mean = confidence[wrong].mean() if wrong.any() else np.nan
    return wrong.mean() if len(y) else np.nan, mean


@plots.our_style()
def draw(eps, accuracies):
    """Accuracy in percent against epsilon, a line for each model."""
    fig = plots.figure(8, 5, "Accuracy after one untargeted sign step (FGSM), 10,000 test digits")
    ax = fig.add_subplot()
    styles = zip(accuracies, (0, 2, 4), ("o-", "s-", "^-"), strict=True)
    curves = [(mnist.title(name), accuracies[name], *style) for name, *style in styles]
    plots.accuracy_curves(ax, eps, curves)
    ax.legend()
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    command.add_output(parser, "the figure to write", files.IMG / "accuracy_vs_epsilon.png")
    args = parser.parse_args(argv)
    output = plots.check_output(args.output, args)

    classifiers = {name: mnist.load(name) for name in mnist.NAMES}
    x, y = data.load("test")

    accuracies, confidences = {}, {}
    for name, model in tqdm(classifiers.items(), disable=None, unit="model"):
        accuracies[name], confidences[name] = accuracy_at(model, x, y, EPS)
    plots.save(draw(EPS, accuracies), output)

    rows = zip(EPS, *accuracies.values(), strict=True)
    rows = [(f"{eps:.3f}", *map("{:.2%}".format, row)) for eps, *row in rows]
    print("accuracy on 10,000 test digits")
    print(command.table(("eps", *map(mnist.title, accuracies)), rows))

    at = EPS.tolist().index(PUBLISHED_EPS)
    ours = [(mnist.title(name), accuracies[name][at], confidences[name][at]) for name in accuracies]
    rows = [(name, f"{right:.1%}", f"{sure:.1%}") for name, right, sure in (*ours, *PUBLISHED)]
    titles = f"at eps {PUBLISHED_EPS}", "accuracy", "mean confidence when wrong"
    print(f"\n{command.table(titles, rows)}")
    return [output]


if __name__ == "__main__":
    command.run(main)
