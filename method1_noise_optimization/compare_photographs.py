"""The same photographs and targets under every method: how much noise, and how long it takes.

    python method1_noise_optimization/compare_photographs.py
    python method1_noise_optimization/compare_photographs.py --images FOLDER --limit 3

Each photograph is turned into each of the targets by one targeted sign step with its smallest
epsilon up to 0.2 (few have one), by sgd, lbfgs and minimal (attack.py), and within one grey level
(grey_levels.py).  The means of |r|_2 and |r|_inf are those of the photographs that reached their
target, which `reached` counts.  A photograph that shows a target already is left out.

reads   the photographs; the network's weights (installed by pip, or downloaded)
writes  nothing
"""

import time

import numpy as np
from tqdm import tqdm

from common import command, models
from common.imagenet import labels, networks
from method1_noise_optimization import attack, few_photographs, photo_noise
from method1_noise_optimization.attack import sizes

LARGEST_EPS = 0.2
WAYS = ("sign step, smallest eps", *attack.METHODS, "one grey level")


def main(argv=None):
    args = parse(argv)
    targets = [labels.index_of(target) for target in args.targets]
    x = few_photographs.read(args.images, args.limit, networks.SIDE)
    model = networks.load(args.model)
    y = models.predict(model, x).argmax(axis=1)

    names = ", ".join(labels.names()[target] for target in targets)
    print(f"{networks.TITLES[args.model]}: {len(x)} photographs, targets {names}")
    print(f"{'':24}reached   mean |r|_2  mean |r|_inf   seconds")
    with tqdm(total=len(WAYS) * len(targets), disable=None) as bar:
        for way in WAYS:
            found, began = [], time.perf_counter()
            for target in targets:
                x_other = x[y != target]
                y_target = np.full(len(x_other), target)
                x_adv = attacked(model, x_other, y_target, way)
                reached = attack.classify(model, x_other, x_adv - x_other, 9) == target
                found.append((x_adv - x_other, reached))
                bar.update()
            # Some take minutes: each line is shown as soon as it is known.
            tqdm.write(line(way, *map(np.concatenate, zip(*found, strict=True)), began))
    return []


def attacked(model, x, y_target, way):
    """The photographs after one of the WAYS: float32 like x."""
    if way == "one grey level":
        return photo_noise.few_levels(model, x, y_target)[0]
    if way in attack.METHODS:
        return attack.adversarial(
            model, x, y_target, method=way, max_steps=photo_noise.MAX_STEPS[way]
        )[0]
    from method2_fgsm.smallest_eps import smallest_eps

    batch_size = photo_noise.BATCH_SIZE
    return smallest_eps(model, x, y_target, max_eps=LARGEST_EPS, batch_size=batch_size)[1]


def line(way, noises, reached, began):
    count = f"{way:24}{reached.sum():3d} of {len(reached):2d}"
    seconds = f"{time.perf_counter() - began:10.1f}"
    if not reached.any():
        return f"{count}{'-':>12}{'-':>14}{seconds}"
    largest = np.abs(noises[reached]).max(axis=(1, 2, 3)).mean()
    return f"{count}{sizes(noises[reached]).mean():12.4f}{largest:14.5f}{seconds}"


def parse(argv):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--model", choices=networks.NAMES, default="efficientnet_lite0", help="the network"
    )
    few_photographs.add_arguments(parser)
    parser.add_argument(
        "--targets",
        nargs="+",
        default=["ostrich", "school bus", "daisy"],
        help="classes: index from 0 to 999, synset or name",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(main)
