"""What adversarial training costs: seconds an epoch, beside plain training, in one process.

    python tests/benchmarks/adversarial_training_cost.py [--model cnn] [--digits 12000]

The two take turns, so that whatever else the machine does hits both; the first turn, in which
TensorFlow compiles, is not counted.
"""

import functools
import time

import numpy as np

from common import command, data, models
from method2_fgsm.adversarial_loss import AdversarialModel, sign_loss


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--model", choices=models.NAMES, default="cnn", help="which classifier")
    parser.add_argument("--digits", type=command.positive_int, default=12000, help="an epoch")
    parser.add_argument("--turns", type=command.positive_int, default=4, help="epochs of each")
    parser.add_argument("--batch-size", type=command.positive_int, default=200, help="digits")
    args = parser.parse_args(argv)
    x, y = (part[: args.digits] for part in data.load("train"))

    import keras

    plain = models.build(args.model)
    adversarial = models.build(args.model)
    adversarial = AdversarialModel(adversarial, functools.partial(sign_loss, eps=0.25, alpha=0.5))
    seconds = {plain: [], adversarial: []}
    for model in seconds:
        model.compile(
            optimizer=keras.optimizers.Adam(2e-3),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            steps_per_execution=50,
            jit_compile=False,
        )
    for _ in range(args.turns + 1):
        for model, taken in seconds.items():
            start = time.perf_counter()
            model.fit(x, y, batch_size=args.batch_size, epochs=1, verbose=0)
            taken.append(time.perf_counter() - start)
    plainly, adversarially = (np.median(taken[1:]) for taken in seconds.values())
    print(f"{args.model}, {args.digits} digits an epoch, median of {args.turns}")
    print(f"plain        {plainly:8.2f} s")
    print(f"adversarial  {adversarially:8.2f} s   {adversarially / plainly:.2f} times")


if __name__ == "__main__":
    command.run(main)
