"""Train the MLP (784-300-100-10) and the CNN on MNIST.

    python common/train_mnist.py               both
    python common/train_mnist.py --model mlp   one of them

Adam, with a learning rate that falls from 0.002 to zero along a cosine; ten epochs of
batches of 100 for the MLP, three epochs of batches of 200 for the CNN.

reads   common/mnist.npz
writes  common/weights/{model}.weights.h5, common/weights/{model}_predictions.csv,
        img/confusion_{model}.png
"""

from common import command, files, training

EPOCHS = {"mlp": 10, "cnn": 3}
LEARNING_RATE = {"mlp": 2e-3, "cnn": 2e-3}
# Adam touches all of the CNN's 3.3 million weights at every step: fewer steps, less time.
BATCH_SIZE = {"mlp": 100, "cnn": 200}


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--model", choices=("mlp", "cnn", "all"), default="all", help="what to train"
    )
    training.add_arguments(parser, epochs=None, batch_size=None, learning_rate=None)
    args = parser.parse_args(argv)
    names = ("mlp", "cnn") if args.model == "all" else (args.model,)
    for name in names:
        for path in training.outputs(name):
            files.check_output(path)

    import keras

    written = []
    for name in names:
        rate = args.learning_rate or LEARNING_RATE[name]
        model = training.fit(
            name,
            lambda steps, rate=rate: keras.optimizers.Adam(
                keras.optimizers.schedules.CosineDecay(rate, steps)
            ),
            epochs=args.epochs or EPOCHS[name],
            batch_size=args.batch_size or BATCH_SIZE[name],
            seed=args.seed,
        )
        written += training.report(name, model)
    return written


if __name__ == "__main__":
    command.run(main)
