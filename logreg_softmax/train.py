"""Train softmax regression, the linear classifier, on MNIST.

    python logreg_softmax/train.py

One linear map from 784 pixels to ten logits, fitted by plain stochastic gradient descent.

reads   common/mnist.npz
writes  common/weights/softmax.weights.h5, common/weights/softmax_predictions.csv,
        img/confusion_softmax.png
"""

from common import command, files
from common.networks import training

NAME = "softmax"


def main(argv=None):
    parser = command.Parser(__doc__)
    training.add_arguments(parser, 25, 100, 0.05)
    args = parser.parse_args(argv)
    for path in training.outputs(NAME):
        files.check_output(path)

    import keras

    model = training.fit(
        NAME,
        lambda steps: keras.optimizers.SGD(args.learning_rate),
        epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
    )
    return training.report(NAME, model)


if __name__ == "__main__":
    command.run(main)
