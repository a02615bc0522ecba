"""Train the MLP (784-300-100-10) and the CNN on MNIST, or a network of other layers.

    python common/train_mnist.py               both
    python common/train_mnist.py --model mlp   one of them
    python common/train_mnist.py --hidden 100 100 --activation sigmoid --weight-decay 1e-5
    python common/train_mnist.py --hidden --weight-decay 1e-4      no hidden layer: FC10

Adam, with a learning rate that falls from 0.002 to zero along a cosine; ten epochs of
batches of 100 for the MLP, three epochs of batches of 200 for the CNN.

--hidden trains the fully connected networks of Szegedy et al. (2014), twenty epochs of batches
of 100.  Their weights are named as in the paper: fc100-100-10_sigmoid, fc10.  The weight decay
does not show in the name.

reads   common/mnist.npz
writes  common/weights/{model}.weights.h5, common/weights/{model}_predictions.csv,
        img/confusion_{model}.png
"""

from common import command, files, models, training

EPOCHS = {"mlp": 10, "cnn": 3}
# Adam touches all of the CNN's 3.3 million weights at every step: fewer steps, less time.
BATCH_SIZE = {"cnn": 200}
LEARNING_RATE = 2e-3


def cosine_adam(learning_rate):
    """Makes, for a number of steps, Adam with a rate that falls to zero along a cosine."""

    def optimizer(steps):
        import keras

        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps))

    return optimizer


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--model", choices=("mlp", "cnn", "all"), default="all", help="what to train"
    )
    parser.add_argument(
        "--hidden",
        nargs="*",
        type=command.positive_int,
        metavar="UNITS",
        help="train this instead: a fully connected network with these hidden layers, or none",
    )
    parser.add_argument(
        "--activation", choices=models.ACTIVATIONS, default="sigmoid", help="of the hidden layers"
    )
    parser.add_argument(
        "--weight-decay",
        nargs="+",
        type=command.positive_float,
        metavar="FACTOR",
        help="add FACTOR * sum(w**2) / units to the loss for each layer; one for all layers, or "
        "one for each",
    )
    training.add_arguments(parser, epochs=None, batch_size=None, learning_rate=LEARNING_RATE)
    args = parser.parse_args(argv)
    if args.hidden is not None:
        if args.model != "all":
            parser.error("--hidden and --model exclude each other")
        names = (models.fully_connected(args.hidden, args.activation),)
        layers = len(args.hidden) + 1
    else:
        names = ("mlp", "cnn") if args.model == "all" else (args.model,)
        layers = None
    decay = args.weight_decay or []
    if decay and layers is None:
        parser.error("--weight-decay goes with --hidden")
    if decay and len(decay) not in (1, layers):
        parser.error(f"--weight-decay takes one factor or {layers}, not {len(decay)}")
    for name in names:
        for path in training.outputs(name):
            files.check_output(path)

    written = []
    for name in names:
        model = training.fit(
            name,
            cosine_adam(args.learning_rate),
            epochs=args.epochs or EPOCHS.get(name, 20),
            batch_size=args.batch_size or BATCH_SIZE.get(name, 100),
            seed=args.seed,
            weight_decay=decay * layers if len(decay) == 1 else decay,
        )
        written += training.report(name, model)
    return written


if __name__ == "__main__":
    command.run(main)
