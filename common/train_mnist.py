"""Train the MLP (784-300-100-10) and the CNN on MNIST, or a network of other layers.

    python common/train_mnist.py               both
    python common/train_mnist.py --model mlp   one of them
    python common/train_mnist.py --hidden 100 100 --activation sigmoid
    python common/train_mnist.py --hidden      no hidden layer

Adam, with a learning rate that falls to zero along a cosine.  --hidden trains the fully connected
networks of Szegedy et al. (2014), called as in the paper: fc100-100-10_sigmoid, or fc10.  --augment
turns each digit by up to 30 degrees, shifts it by up to 3 pixels, and adds _augmented to the name.

reads   common/mnist.npz
writes  common/weights/{model}.weights.h5, common/weights/{model}_predictions.csv,
        img/confusion_{model}.png
"""

from common import command, files
from common.networks import mnist, training

EPOCHS = {"mlp": 10, "cnn": 3, "mlp_augmented": 10, "cnn_augmented": 4}
PLAIN = "mlp", "cnn"


def behind_moves(model):
    """The model behind a random turn and shift of each digit that it is trained on."""
    import keras
    from keras import layers

    turn = layers.RandomRotation(30 / 360, fill_mode="constant")
    shift = layers.RandomTranslation(3 / 28, 3 / 28, fill_mode="constant")
    into, out = layers.Reshape((28, 28, 1)), layers.Reshape((28, 28))
    return keras.Sequential([keras.Input((28, 28)), into, turn, shift, out, model])


def main(argv=None):
    parser = command.Parser(__doc__)
    whole, positive, activations = command.positive_int, command.positive_float, mnist.ACTIVATIONS
    parser.add_argument("--model", choices=(*PLAIN, "all"), default="all", help="what to train")
    units = "train a fully connected network with these hidden layers, or none, instead"
    command.option(parser, "--hidden", whole, None, units, nargs="*", metavar="UNITS")
    hidden = "of the hidden layers"
    command.option(parser, "--activation", str, "sigmoid", hidden, choices=activations)
    factors = (
        "add FACTOR * sum(w**2) / units to the loss; one for all layers, or one for each "
        "(default: 1e-5, for the last 1e-6, for the only one 1e-4, as in the paper)"
    )
    command.option(parser, "--weight-decay", positive, None, factors, nargs="+", metavar="FACTOR")
    augment = "train on digits that are turned and shifted at random"
    parser.add_argument("--augment", action="store_true", help=augment)
    training.add_arguments(parser, None, None, training.LEARNING_RATE)
    args = parser.parse_args(argv)
    names = PLAIN if args.model == "all" else (args.model,)
    decay = ()
    if args.augment:
        names = tuple(f"{name}_augmented" for name in names)
    if args.hidden is not None:
        if args.model != "all" or args.augment:
            parser.error("--hidden and --model or --augment exclude each other")
        names = (mnist.fully_connected(args.hidden, args.activation),)
        decay = args.weight_decay or training.published_decay(args.hidden)
        layers = len(args.hidden) + 1
        if len(decay) == 1:
            decay = layers * tuple(decay)
        if len(decay) != layers:
            parser.error(f"--weight-decay takes one factor or {layers}, not {len(decay)}")
    elif args.weight_decay:
        parser.error("--weight-decay goes with --hidden")
    for name in names:
        for path in training.outputs(name):
            files.check_output(path)

    written = []
    for name in names:
        model = training.fit(
            name,
            training.cosine_adam(args.learning_rate),
            epochs=args.epochs or EPOCHS.get(name, training.EPOCHS_HIDDEN),
            batch_size=args.batch_size or training.BATCH_SIZE.get(mnist.architecture(name), 100),
            trainer=behind_moves if args.augment else None,
            seed=args.seed,
            weight_decay=decay,
        )
        written += training.report(name, model)
    return written


if __name__ == "__main__":
    command.run(main)
