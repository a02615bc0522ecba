"""Do photographs that were made to fool one network fool its relatives?

    python method1_noise_optimization/transfer_photographs.py

For each of three networks of one family the photographs are attacked in three ways: the smallest
noise towards the target (minimal), one grey level towards it (grey_levels.py), and the fast
gradient sign away from the label.  Each result is then shown to all three networks, scaled to the
size that the network takes (bicubic, as a photograph would be).  The table says how many get
another label than the scaled original does, and how many get the target.

reads   the photographs; the networks' weights (installed by pip)
writes  nothing
"""

import numpy as np
from tqdm import tqdm

from common import command, models
from common.imagenet import efficientnet_lite, labels, networks
from method1_noise_optimization import attack, few_photographs, photo_noise

EPS = 0.007
WAYS = ("minimal", "one grey level", f"sign step, eps {EPS}")


def main(argv=None):
    args = parse(argv)
    target = labels.index_of(args.target)
    photographs = {
        name: few_photographs.read(args.images, args.limit, networks.side(name))
        for name in args.models
    }
    loaded = {name: networks.load(name) for name in args.models}

    counts = {}
    for name, x in tqdm(photographs.items(), disable=None):
        y = models.predict(loaded[name], x).argmax(axis=1)
        for way in WAYS:
            x_adv = attacked(loaded[name], x, y, np.full(len(x), target), way)
            for other, judge in loaded.items():
                before, after = (
                    models.predict(judge, scaled(images, networks.side(other))).argmax(axis=1)
                    for images in (x, x_adv)
                )
                changed = before != after
                counts[way, name, other] = changed.sum(), (changed & (after == target)).sum()
    goal = labels.names()[target]
    print(f"{len(x)} photographs: with another label (of these, {goal}) for")
    print(f"{'made against':44}" + "".join(f"{networks.TITLES[name]:>20}" for name in loaded))
    for way in WAYS:
        for name in loaded:
            cells = (counts[way, name, other] for other in loaded)
            row = "".join(f"{f'{changed} ({reached})':>20}" for changed, reached in cells)
            print(f"{way:22}{networks.TITLES[name]:22}{row}")
    return []


def attacked(model, x, y, y_target, way):
    """The photographs after one of the WAYS: float32 like x."""
    if way == "minimal":
        return attack.adversarial(
            model, x, y_target, method=way, max_steps=photo_noise.MAX_STEPS[way]
        )[0]
    if way == "one grey level":
        return photo_noise.few_levels(model, x, y_target)[0]
    from method2_fgsm.fgsm import fgsm

    return fgsm(model, x, y, EPS)


def scaled(x, side):
    """Photographs (n, h, w, 3) in [0, 1], scaled to side x side without rounding to 8 bits."""
    if x.shape[1] == side:
        return x

    import tensorflow as tf

    resized = tf.image.resize(x, (side, side), method="bicubic", antialias=True)
    return np.clip(resized.numpy(), 0, 1)


def parse(argv):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=networks.NAMES,
        default=list(efficientnet_lite.FAMILY),
        help="the networks",
    )
    parser.add_argument("--target", default="ostrich", help="class: index, synset or name")
    few_photographs.add_arguments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    command.run(main)
