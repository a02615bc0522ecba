"""Our battery beside the attacks of AutoAttack as torchattacks has them, on the same digits.

    pip install -r tests/benchmarks/requirements.txt
    pip install --no-deps torchattacks==3.5.1
    python tests/benchmarks/robustness_vs_libraries.py
    python tests/benchmarks/robustness_vs_libraries.py --model cnn_adversarial --count 200

APGD on the cross entropy (100 steps, 2 restarts), targeted APGD (100 steps, 9 targets) and Square
(2,000 queries), of Croce & Hein (2020) and Andriushchenko et al. (2020).  The CNN's weights are
copied into PyTorch; that its logits agree is checked, and every adversarial digit is judged by
ours.  Each attack is given what the ones before it left; FAB, the fourth of AutoAttack, is not
tried.

reads   common/mnist.npz, common/weights/{model}.weights.h5, and the plain network's
writes  nothing
"""

import time

import numpy as np

from common import command, data, models
from common.command import Failure


def in_torch(model):
    """The CNN as a PyTorch module from (n, 1, 28, 28) to logits."""
    import torch
    from torch.nn import functional

    weights = [torch.tensor(array) for array in model.get_weights()]
    first, first_bias, second, second_bias, dense, dense_bias, last, last_bias = weights

    class Cnn(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = torch.nn.ParameterList(weights)
            self.requires_grad_(False)

        def forward(self, x):
            for kernel, bias in ((first, first_bias), (second, second_bias)):
                x = functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=2)
                x = functional.relu(functional.max_pool2d(x, 2))
            # Keras flattens with the channels last.
            x = x.permute(0, 2, 3, 1).flatten(1)
            return functional.relu(x @ dense + dense_bias) @ last + last_bias

    return Cnn()


def library_attacks(network, eps):
    """The three attacks by name."""
    import torchattacks

    return {
        "APGD": torchattacks.APGD(network, eps=eps, steps=100, n_restarts=2),
        "APGD, targeted": torchattacks.APGDT(network, eps=eps, steps=100, n_restarts=1),
        "Square": torchattacks.Square(network, eps=eps, n_queries=2000),
    }


def main(argv=None):
    parser = command.Parser(__doc__)
    command.add_model(parser, "cnn_robust")
    parser.add_argument(
        "--count", type=command.positive_int, default=1000, help="how many test digits"
    )
    parser.add_argument(
        "--eps", type=command.pixel_size, default=0.3, help="largest change of a pixel"
    )
    args = parser.parse_args(argv)
    plain = models.architecture(args.model)
    if plain != "cnn":
        raise Failure(f"--model {args.model}: only the CNN's layers are known here")
    model = models.load(args.model)
    x, y = (part[: args.count] for part in data.load("test"))

    import torch

    from method2_fgsm import battery

    network = in_torch(model)
    logits = network(torch.tensor(x[:, np.newaxis])).numpy()
    np.testing.assert_allclose(logits, models.predict(model, x), rtol=1e-3, atol=1e-3)
    standing = models.classify(model, x) == y
    print(f"{models.title(args.model)}, eps {args.eps:g}: {len(x)} test digits")
    print(f"{'no attack':36}{standing.mean():10.2%}", flush=True)
    for name, attack in library_attacks(network, args.eps).items():
        start = time.perf_counter()
        rows = np.flatnonzero(standing)
        x_adv = attack(torch.tensor(x[rows, np.newaxis]), torch.tensor(y[rows])).numpy()[:, 0]
        if np.abs(x_adv - x[rows]).max() > args.eps + 1e-6:
            raise Failure(f"{name} left the box")
        standing[rows] = models.classify(model, x_adv) == y[rows]
        seconds = time.perf_counter() - start
        print(f"{'and after ' + name:36}{standing.mean():10.2%}{seconds:8.0f} s", flush=True)

    start = time.perf_counter()
    source = models.load(plain if plain != args.model else "mlp")
    with_gradient, without = battery.attacks(source)
    attacks = [*with_gradient.values(), *without.values()]
    ours = battery.withstood_all(model, x, y, args.eps, attacks)
    seconds = time.perf_counter() - start
    print(f"{'our battery':36}{ours.mean():10.2%}{seconds:8.0f} s")
    print(
        f"left by ours alone {(ours & ~standing).sum()}, by theirs alone {(standing & ~ours).sum()}"
    )


if __name__ == "__main__":
    command.run(main)
