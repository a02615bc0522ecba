"""How many digits withstand each of nine attacks, and all of them together, image by image.

    python method2_fgsm/robustness.py
    python method2_fgsm/robustness.py --model cnn_adversarial --eps 0.25

The first test digits are attacked within epsilon (away from their labels, L∞) by each of

    sign step               one step along the sign of the gradient (Goodfellow et al. 2015)
    projected steps         40 of them from 2 random starts (Madry et al. 2018), on the cross
                            entropy, on the margin of the logits, and on the margin to each of
                            the nine other digits (Gowal et al. 2019)
    smallest epsilon        100 steps towards the likeliest other digit, which look for the smallest
                            noise and need not stay within epsilon on the way
    ..., transferred        the sign step and the projected steps against the plain network
    random squares          1,000 queries without any gradient (Andriushchenko et al. 2020)
    random noise            20 random corners of the box

and what counts is what is left under all of them.  "only this" are the digits that no other attack
fools.  The last row is the other side: the digits of which interval bounds (bounds.py) prove that
no attack can fool them.  Where an attack that never looks at the gradient does more than one that
follows it, by more than chance explains, a line warns that the gradient is masked, and on how many
digits.  A thousand questions to the network are not set beside the single sign step.

reads   common/mnist.npz, common/weights/{model}.weights.h5, and those of the network that examples
        are transferred from
writes  nothing
"""

import numpy as np
from tqdm import tqdm

from common import command, data, models


def print_table(clean, standing):
    """What each attack leaves, and what only it finds.

    clean: bool (n,).  standing: bool (n,) for each attack by name.
    """
    fooled = {name: clean & ~left for name, left in standing.items()}
    times = np.sum(list(fooled.values()), axis=0)
    print(f"{'':36}{'accuracy':>10}{'fooled':>9}{'only this':>12}")
    print(f"{'no attack':36}{clean.mean():10.2%}")
    for name, left in standing.items():
        alone = (fooled[name] & (times == 1)).sum()
        print(f"{name:36}{left.mean():10.2%}{fooled[name].sum():9d}{alone:12d}")
    together = np.all(list(standing.values()), axis=0)
    print(f"{'all together':36}{together.mean():10.2%}{(clean & ~together).sum():9d}")
    most = max(fooled, key=lambda name: fooled[name].sum())
    print(f"most are found by: {most}")


def main(argv=None):
    parser = command.Parser(__doc__)
    models.add_model(parser, "cnn_robust")
    parser.add_argument(
        "--eps", type=command.pixel_size, default=0.3, help="largest change of a pixel"
    )
    command.add_count(parser, "--count", "how many test digits", 1000)
    command.add_seed(parser, "random starts, squares, noise")
    args = parser.parse_args(argv)
    model = models.load(args.model)
    source = models.load(models.source_of(args.model))
    x, y = (part[: args.count] for part in data.load("test"))

    from method2_fgsm import battery, bounds

    with_gradient, without = battery.attacks(source)
    clean = models.classify(model, x) == y
    standing = {
        name: battery.withstood(model, x, y, args.eps, attack, seed=args.seed)
        for name, attack in tqdm({**with_gradient, **without}.items(), disable=None, unit="attack")
    }

    print(f"{models.title(args.model)}, eps {args.eps:g}: {len(x)} test digits")
    print_table(clean, standing)
    try:
        print(f"{'proven':36}{bounds.proven(model, x, y, args.eps).mean():10.2%}")
    except ValueError as error:
        print(f"nothing can be proven: {error}")
    for line in battery.masked(
        *({k: standing[k] for k in kind} for kind in (with_gradient, without))
    ):
        print(f"warning: {line}")
    return []


if __name__ == "__main__":
    command.run(main)
