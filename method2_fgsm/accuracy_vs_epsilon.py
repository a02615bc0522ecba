"""How fast accuracy falls as epsilon grows, for the three models on the full test set.

    python method2_fgsm/accuracy_vs_epsilon.py

Untargeted fast gradient sign on all 10,000 test digits, away from their true labels, for epsilon
from 0 to 0.3.  At epsilon 0.25 the table sets our figures beside those of Goodfellow et al.
(2015), section 4.

reads   common/mnist.npz, common/weights/{softmax,mlp,cnn}.weights.h5
writes  img/accuracy_vs_epsilon.png
"""

from pathlib import Path

import numpy as np

from common import command, data, files, models, plots

EPS = np.round(np.arange(0, 0.301, 0.025), 3)
PUBLISHED_EPS = 0.25
# Goodfellow et al. (2015), section 4: error rate and mean confidence on MNIST at eps 0.25.
PUBLISHED = (("shallow softmax", 0.999, 0.793), ("maxout network", 0.894, 0.976))


def along_eps(model, x, y, eps, *, source=None):
    """Error rate and mean confidence in the wrong label at each eps: two float arrays.

    The sign of the gradient at x does not depend on eps: it is taken once, and every eps reuses
    it.  x float32 (n, 28, 28), y int (n,), eps (k,) in pixel units.  source: the model whose
    gradient it is, if not `model` itself; then the errors are those that transfer.
    """
    from method2_fgsm import fgsm

    sign = fgsm.gradient_signs(model if source is None else source, x, y)
    return np.array(
        [
            models.wrong_label_confidence(models.predict(model, np.clip(x + e * sign, 0, 1)), y)
            for e in eps
        ]
    ).T


def draw(eps, errors):
    """Accuracy in percent against epsilon, a line for each model."""
    fig = plots.figure(8, 5, "Accuracy under the untargeted fast gradient sign, 10,000 test digits")
    ax = fig.add_subplot()
    for name, colour, marker in zip(errors, (0, 2, 4), "os^", strict=True):
        ax.plot(
            eps,
            100 * (1 - errors[name]),
            color=plots.COLOURS[colour],
            marker=marker,
            label=models.title(name),
        )
    ax.set(xlabel="ε (pixel units)", ylabel="accuracy (%)", ylim=(-2, 102))
    ax.legend()
    return fig


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        default=files.IMG / "accuracy_vs_epsilon.png",
        help="the figure to write",
    )
    args = parser.parse_args(argv)
    output = files.check_output(args.output)

    classifiers = {name: models.load(name) for name in models.NAMES}
    x, y = data.load("test")

    from tqdm import tqdm

    errors, confidences = {}, {}
    for name, model in tqdm(classifiers.items(), disable=None, unit="model"):
        errors[name], confidences[name] = along_eps(model, x, y, EPS)
    plots.save(draw(EPS, errors), output)

    print("accuracy on 10,000 test digits")
    print("   eps" + "".join(f"{models.title(name):>20}" for name in errors))
    for row, eps in enumerate(EPS):
        print(f"{eps:6.3f}" + "".join(f"{1 - error[row]:20.2%}" for error in errors.values()))
    row = int(np.flatnonzero(EPS == PUBLISHED_EPS)[0])
    print(f"\nat eps {PUBLISHED_EPS}                      error rate   mean confidence when wrong")
    for name in errors:
        error, confidence = errors[name][row], confidences[name][row]
        print(f"{models.title(name):30}{error:12.1%}{confidence:12.1%}")
    for name, error, confidence in PUBLISHED:
        print(f"{'published: ' + name:30}{error:12.1%}{confidence:12.1%}")
    print(f"wrote {files.show(output)}")
    return [output]


if __name__ == "__main__":
    command.run(main)
