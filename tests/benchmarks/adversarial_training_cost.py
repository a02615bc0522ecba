"""What adversarial training costs: seconds an epoch, beside plain training, in one process.

    python tests/benchmarks/adversarial_training_cost.py [--model cnn] [--digits 12000]

All get batches of the same size, and take turns, so that whatever else the machine does hits all;
the first turn, in which TensorFlow compiles, is not counted.
"""

import time

import numpy as np

from common import command, data
from common.networks import mnist
from method2_fgsm.robust.adversarial_loss import (
    AdversarialModel,
    cells,
    projected_loss,
    sign_loss,
    uniform,
)

EPS = 0.25


def losses(steps):
    """The losses of the three kinds of training on attacks, by name: (model, x, y) -> loss."""
    return {
        "sign": lambda model, x, y: sign_loss(model, x, y, EPS, 0.5),
        "random-start": lambda model, x, y: projected_loss(
            model, x, y, EPS, 1, 1.25 * EPS, uniform
        ),
        f"pgd, {steps} steps": lambda model, x, y: projected_loss(
            model, x, y, EPS, steps, 2.5 * EPS / steps, cells
        ),
    }


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--model", choices=mnist.NAMES, default="cnn", help="which classifier")
    parser.add_argument("--digits", type=command.positive_int, default=12000, help="an epoch")
    parser.add_argument("--turns", type=command.positive_int, default=4, help="epochs of each")
    parser.add_argument("--batch-size", type=command.positive_int, default=200, help="digits")
    parser.add_argument("--steps", type=command.positive_int, default=5, help="of pgd")
    args = parser.parse_args(argv)
    x, y = (part[: args.digits] for part in data.load("train"))

    import keras

    trained = {"plain": mnist.build(args.model)}
    for name, loss in losses(args.steps).items():
        trained[name] = AdversarialModel(mnist.build(args.model), loss)
    for model in trained.values():
        model.compile(
            optimizer=keras.optimizers.Adam(2e-3),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            steps_per_execution=50,
            jit_compile=False,
        )
    seconds = {name: [] for name in trained}
    for _ in range(args.turns + 1):
        for name, model in trained.items():
            start = time.perf_counter()
            model.fit(x, y, batch_size=args.batch_size, epochs=1, verbose=0)
            seconds[name].append(time.perf_counter() - start)
    print(f"{args.model}, {args.digits} digits an epoch, median of {args.turns}")
    for name, taken in seconds.items():
        median, plain = (np.median(part[1:]) for part in (taken, seconds["plain"]))
        print(f"{name:16}{median:8.2f} s{median / plain:8.2f} times")


if __name__ == "__main__":
    command.run(main)
