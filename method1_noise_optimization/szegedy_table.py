"""Repeat table 1 of Szegedy et al. (2014): how small the noise is on the paper's networks.

    python common/train_mnist.py --hidden
    python common/train_mnist.py --hidden 100 100 --activation sigmoid
    python common/train_mnist.py --hidden 200 200 --activation sigmoid
    python method1_noise_optimization/szegedy_table.py

The average distortion sqrt(mean(r**2)) over test digits that the network classifies correctly, each
with a random wrong target, for the box-constrained L-BFGS of the paper and for `minimal` from eight
starts; and that of the nearest wrong answer, whichever it is.

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

# Accuracy on the test digits and average minimum distortion, Szegedy et al. (2014), table 1.
PUBLISHED = {
    "fc10": (0.926, 0.062),
    "fc100-100-10_sigmoid": (0.9836, 0.058),
    "fc200-200-10_sigmoid": (0.9846, 0.065),
}


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
    print(f"{'network':24}{'accuracy':>11}{'lbfgs':>17}{'minimal':>17}", end="")
    print(f"{'nearest digit':>15}{'digits':>8}{'published':>11}{'its accuracy':>14}")
    for name, model in tqdm(networks.items(), disable=None, unit="network"):
        right = mnist.correctly_classified([model], x, y, files.show(args.samples))[: args.count]
        targets = attack.random_targets(y[right], args.seed)
        line = f"{mnist.title(name):24}{(mnist.classify(model, x_test) == y_test).mean():11.2%}"
        for how in ({"method": "lbfgs"}, {"method": "minimal", "starts": attack.STARTS}):
            noise = attack.find_noise(model, x[right], targets, **how)
            reached = attack.reached(model, x[right], noise, targets)
            size = attack.distortions(noise[reached]).mean() if reached.any() else np.nan
            line += f"{size:10.4f} ({reached.mean():4.0%})"
        _, sizes = nearest(model, x[right], y[right], "l2", starts=attack.STARTS)
        accuracy, published = PUBLISHED[name]
        line += f"{sizes[np.isfinite(sizes)].mean() / 28:15.4f}{len(right):8d}"
        tqdm.write(f"{line}{published:11.3f}{accuracy:14.2%}")
    return []


if __name__ == "__main__":
    command.run(main)
