"""Our battery beside the attacks of AutoAttack as torchattacks has them, on the same digits.

    pip install -r tests/benchmarks/requirements.txt
    pip install --no-deps torchattacks==3.5.1
    python tests/benchmarks/robustness_vs_libraries.py
    python tests/benchmarks/robustness_vs_libraries.py --model cnn_adversarial --count 200

APGD on the cross entropy (100 steps, 2 restarts), targeted APGD (100 steps, 9 targets) and Square
(2,000 queries), of Croce & Hein (2020) and Andriushchenko et al. (2020).  The weights are copied
into PyTorch, and every adversarial digit is judged by our model.  Each attack is given what the
ones before it left; FAB, the fourth of AutoAttack, is not tried.

reads   common/mnist.npz, common/weights/{model}.weights.h5, and the plain network's
writes  nothing
"""

import time

import numpy as np
from torch_models import in_torch

from common import command, data
from common.networks import mnist


def library_attacks(network, eps):
    """The three attacks by name."""
    import torchattacks

    attacks = {
        "APGD": torchattacks.APGD(network, eps=eps, steps=100, n_restarts=2),
        "APGD, targeted": torchattacks.APGDT(network, eps=eps, steps=100, n_restarts=1),
        "Square": torchattacks.Square(network, eps=eps, n_queries=2000),
    }
    for attack in attacks.values():
        attack.set_device("cpu")
    return attacks


def main(argv=None):
    parser = command.Parser(__doc__)
    mnist.add_model(parser, "cnn_robust")
    parser.add_argument(
        "--count", type=command.positive_int, default=1000, help="how many test digits"
    )
    parser.add_argument(
        "--eps", type=command.pixel_size, default=0.3, help="largest change of a pixel"
    )
    args = parser.parse_args(argv)
    model = mnist.load(args.model)
    x, y = (part[: args.count] for part in data.load("test"))

    import torch

    from method2_fgsm.robust import ensemble

    network = in_torch(model, x)
    standing = mnist.classify(model, x) == y
    print(f"{mnist.title(args.model)}, eps {args.eps:g}: {len(x)} test digits")
    print(f"{'no attack':36}{standing.mean():10.2%}", flush=True)
    for name, attack in library_attacks(network, args.eps).items():
        start = time.perf_counter()
        rows = np.flatnonzero(standing)
        x_adv = attack(torch.tensor(x[rows, np.newaxis]), torch.tensor(y[rows]))
        x_adv = x_adv.detach().numpy()[:, 0]
        assert np.abs(x_adv - x[rows]).max() <= args.eps + 1e-6
        standing[rows] = mnist.classify(model, x_adv) == y[rows]
        seconds = time.perf_counter() - start
        print(f"{'and after ' + name:36}{standing.mean():10.2%}{seconds:8.0f} s", flush=True)

    start = time.perf_counter()
    source = mnist.load(mnist.source_of(args.model))
    with_gradient, without = ensemble.attacks(source)
    attacks = [*with_gradient.values(), *without.values()]
    ours = ensemble.withstood_all(model, x, y, args.eps, attacks)
    seconds = time.perf_counter() - start
    print(f"{'our battery':36}{ours.mean():10.2%}{seconds:8.0f} s")
    print(
        f"left by ours alone {(ours & ~standing).sum()}, by theirs alone {(standing & ~ours).sum()}"
    )


if __name__ == "__main__":
    command.run(main)
