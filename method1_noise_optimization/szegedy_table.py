"""Szegedy et al. (2014), table 1: how small the noise can be, on the networks of the paper.

    python common/train_mnist.py --hidden
    python common/train_mnist.py --hidden 100 100 --activation sigmoid
    python common/train_mnist.py --hidden 200 200 --activation sigmoid
    python method1_noise_optimization/szegedy_table.py

The distortion of an image is sqrt(mean(r**2)) over its 784 pixels.  Its average is taken over
test digits that the network classifies correctly, each with a random wrong target, for the box-
constrained L-BFGS of the paper and for `minimal` from eight starts, which finds smaller noise.  The
last column is that of the nearest wrong answer, whichever it is, by as many starts.

reads   common/mnist.npz, common/5k_samples.npz, common/weights/fc10.weights.h5,
        fc100-100-10_sigmoid.weights.h5 and fc200-200-10_sigmoid.weights.h5 beside it
writes  nothing
"""

import numpy as np
from tqdm import tqdm

from common import command, data, files
from common.networks import mnist
from method1_noise_optimization import attack
from method1_noise_optimization.nearest import nearest

# Test error and average minimum distortion, Szegedy et al. (2014), table 1.
PUBLISHED = {
    "fc10": (0.074, 0.062),
    "fc100-100-10_sigmoid": (0.0164, 0.058),
    "fc200-200-10_sigmoid": (0.0154, 0.065),
}


def distortion(model, x, targets, method):
    """Average distortion where the target was reached, and the share of images where it was."""
    noise = attack.find_noise(model, x, targets, method=method, starts=attack.STARTS)
    reached = attack.reached(model, x, noise, targets)
    return attack.distortions(noise[reached]).mean() if reached.any() else np.nan, reached.mean()


def main(argv=None):
    parser = command.Parser(__doc__)
    command.add_count(parser, "--count", "how many digits at most", 500)
    data.add_samples(parser)
    command.add_seed(parser, "of the targets")
    args = parser.parse_args(argv)
    networks = {name: mnist.load(name) for name in PUBLISHED}
    x, y, _ = data.load_samples(args.samples)

    x_test, y_test = data.load("test")
    print("average distortion sqrt(mean(r**2)), in brackets the share of targets reached")
    print(
        f"{'network':24}{'test error':>11}{'lbfgs':>17}{'minimal':>17}{'nearest digit':>15}"
        f"{'digits':>8}{'published':>11}{'its error':>11}"
    )
    for name, model in tqdm(networks.items(), disable=None, unit="network"):
        right = mnist.correctly_classified([model], x, y, files.show(args.samples))
        own_x, own_y = x[right[: args.count]], y[right[: args.count]]
        targets = attack.random_targets(own_y, args.seed)
        line = f"{mnist.title(name):24}{(mnist.classify(model, x_test) != y_test).mean():11.2%}"
        for method in ("lbfgs", "minimal"):
            size, reached = distortion(model, own_x, targets, method)
            line += f"{size:10.4f} ({reached:4.0%})"
        published_error, published = PUBLISHED[name]
        _, sizes = nearest(model, own_x, own_y, "l2", starts=attack.STARTS)
        line += f"{sizes[np.isfinite(sizes)].mean() / 28:15.4f}{len(own_x):8d}"
        tqdm.write(f"{line}{published:11.3f}{published_error:11.2%}")
    return []


if __name__ == "__main__":
    command.run(main)
