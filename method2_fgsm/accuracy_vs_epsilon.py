"""How fast accuracy falls as epsilon grows, for the three models on the full test set.

    python method2_fgsm/accuracy_vs_epsilon.py

Untargeted fast gradient sign on all 10,000 test digits, away from their true labels, for epsilon
from 0 to 0.3.  At epsilon 0.25 the table sets our figures beside those of Goodfellow et al.
(2015), section 4.

reads   common/mnist.npz, common/weights/{softmax,mlp,cnn}.weights.h5
writes  img/accuracy_vs_epsilon.png
"""

import numpy as np
from tqdm import tqdm

from common import command, data, files, plots
from common.networks import mnist

EPS = np.round(np.arange(0, 0.301, 0.025), 3)
PUBLISHED_EPS = 0.25
# Goodfellow et al. (2015), section 4: error rate and mean confidence on MNIST at eps 0.25.
PUBLISHED = (("shallow softmax", 0.999, 0.793), ("maxout network", 0.894, 0.976))


@plots.our_style()
def draw(eps, errors):
    """Accuracy in percent against epsilon, a line for each model."""
    fig = plots.figure(8, 5, "Accuracy under the untargeted fast gradient sign, 10,000 test digits")
    ax = fig.add_subplot()
    styles = zip(errors, (0, 2, 4), ("o-", "s-", "^-"), strict=True)
    curves = [(mnist.title(name), 1 - errors[name], *style) for name, *style in styles]
    plots.accuracy_curves(ax, eps, curves)
    ax.legend()
    return fig


def print_table(errors, confidences):
    """The accuracy of each model at each epsilon, and the published figures beside ours."""
    print("accuracy on 10,000 test digits")
    print("   eps" + "".join(f"{mnist.title(name):>20}" for name in errors))
    for row, eps in enumerate(EPS):
        print(f"{eps:6.3f}" + "".join(f"{1 - error[row]:20.2%}" for error in errors.values()))
    row = int(np.flatnonzero(EPS == PUBLISHED_EPS)[0])
    print(f"\nat eps {PUBLISHED_EPS}                      error rate   mean confidence when wrong")
    for name in errors:
        error, confidence = errors[name][row], confidences[name][row]
        print(f"{mnist.title(name):30}{error:12.1%}{confidence:12.1%}")
    for name, error, confidence in PUBLISHED:
        print(f"{'published: ' + name:30}{error:12.1%}{confidence:12.1%}")


def main(argv=None):
    parser = command.Parser(__doc__)
    command.add_output(parser, "the figure to write", files.IMG / "accuracy_vs_epsilon.png")
    args = parser.parse_args(argv)
    output = plots.check_output(args.output, args)

    classifiers = {name: mnist.load(name) for name in mnist.NAMES}
    x, y = data.load("test")

    from method2_fgsm.error_rates import error_rates

    errors, confidences = {}, {}
    for name, model in tqdm(classifiers.items(), disable=None, unit="model"):
        errors[name], confidences[name] = error_rates(model, x, y, EPS)
    plots.save(draw(EPS, errors), output)

    print_table(errors, confidences)
    return [output]


if __name__ == "__main__":
    command.run(main)
