"""Training as the two training scripts share it: fit, report, save."""

import csv
import sys

import numpy as np

from common import command, data, files, plots
from common.command import Failure
from common.networks import mnist

# Of Adam, for networks with hidden layers.
LEARNING_RATE = 2e-3
# Of models that are not trained in batches of 100.  Adam touches all of the CNN's 3.3 million
# weights at every step: fewer steps, less time.
BATCH_SIZE = {"cnn": 200}
# Of the fully connected networks of Szegedy et al. (2014).
EPOCHS_HIDDEN = 20


def outputs(name):
    """What training a model writes: its weights, its predictions over the test set as CSV, and the
    figure of its confusion matrix."""
    predictions, confusion = f"{name}_predictions.csv", f"confusion_{name}.png"
    return [mnist.weights_path(name), files.WEIGHTS / predictions, files.IMG / confusion]


def cosine_adam(learning_rate):
    """Makes, for a number of steps, Adam with a rate that falls to zero along a cosine."""

    def optimizer(steps):
        import keras

        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps))

    return optimizer


def published_decay(hidden):
    """The weight decay of each layer in Szegedy et al. (2014), table 1."""
    return (*(1e-5 for _ in hidden), 1e-6) if hidden else (1e-4,)


def fit(
    name,
    optimizer,
    *,
    epochs,
    batch_size,
    seed,
    rows=None,
    weight_decay=(),
    trainer=None,
    callbacks=(),
    jit_compile=False,
):
    """Train a new model on the 60,000 training digits and return it.

    optimizer: `optimizer(steps)` makes the Keras optimizer for that many steps in all.
    seed: fixes the initial weights, the order of the digits and the dropout.
    rows: which training digits, as a slice or indices; all of them if None.
    weight_decay: for each layer with weights w and k units, the factor of Σ w² / k in the loss
    (Szegedy et al. 2014, section 4.2); none if empty.
    trainer: `trainer(model)` makes the Keras model whose `fit` is run, if it is not the model
    itself; it shares the model's layers, or a callback brings what it learns to the model.
    callbacks: Keras's, told of each epoch.  jit_compile: whether XLA compiles a step ("auto": where
    it can).
    """
    x, y = data.load("train")
    data.load("test")  # what is wrong with it should be known before the training, not after
    if rows is not None:
        x, y = x[rows], y[rows]

    import keras

    keras.utils.set_random_seed(seed)
    model = mnist.build(name)
    if weight_decay:
        dense = [layer for layer in model.layers if layer.weights]
        for layer, factor in zip(dense, weight_decay, strict=True):
            layer.kernel.regularizer = keras.regularizers.L2(factor / layer.kernel.shape[-1])
    steps_per_epoch = -(-len(x) // batch_size)
    trained = model if trainer is None else trainer(model)
    trained.compile(
        optimizer=optimizer(epochs * steps_per_epoch),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # Fifty steps inside one compiled call: half the time for the small models.
        steps_per_execution=min(50, steps_per_epoch),
        jit_compile=jit_compile,
    )
    # A progress bar on a terminal, a line an epoch in a file.
    verbose = 1 if sys.stdout.isatty() else 2
    trained.fit(
        x, y, batch_size=batch_size, epochs=epochs, verbose=verbose, callbacks=list(callbacks)
    )
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise Failure(f"training the {mnist.title(name)} diverged: try a smaller --learning-rate")
    return model


def report(name, model):
    """Print the test figures, write weights, predictions and figure; return the three paths."""
    x, y = data.load("test")
    logits = mnist.predict(model, x)
    predicted = logits.argmax(axis=1)
    accuracy = (predicted == y).mean()
    loss = -np.log(mnist.softmax(logits.astype(np.float64))[np.arange(len(y)), y]).mean()
    confusion = confusion_matrix(y, predicted)

    print(table(confusion))
    print(f"{mnist.title(name)}: test loss {loss:.4f}, test accuracy {accuracy:.2%}")

    weights, predictions, picture = outputs(name)
    # A new model with the same weights: the trained one would save its optimizer's state too.
    bare = mnist.build(name)
    bare.set_weights(model.get_weights())
    with files.replacing(weights) as temporary:
        # HDF5 crashes at exit when a disk runs full: see first whether there is room.
        temporary.write_bytes(bytes(100_000 + sum(array.nbytes for array in bare.get_weights())))
        bare.save_weights(temporary)
    with files.replacing(predictions) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("index", "actual", "predicted"))
        writer.writerows(zip(range(len(y)), y, predicted, strict=True))
    title = f"{mnist.title(name)}: {accuracy:.2%} of 10,000 test digits right"
    plots.save(plots.confusion(confusion, title), picture)
    return outputs(name)


def add_arguments(parser, epochs, batch_size, learning_rate):
    """The settings of training, with a script's own defaults."""
    command.add_count(parser, "--epochs", "passes over the training set", epochs)
    command.add_count(parser, "--batch-size", "digits a step", batch_size)
    positive = command.positive_float
    command.option(parser, "--learning-rate", positive, learning_rate, "of the optimizer")
    command.add_seed(parser, "initial weights, order of the digits, dropout")


def confusion_matrix(actual, predicted, classes=10):
    """Counts (classes, classes) int64: row the actual label, column the predicted one."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (actual, predicted), 1)
    return counts


def precision_and_recall(confusion):
    """For each class: the share of its predictions that are right, and of its members found.

    Returns two float64 (classes,) arrays, NaN where a class was never predicted or never occurs.
    """
    right = np.diag(confusion)
    with np.errstate(invalid="ignore"):
        return right / confusion.sum(axis=0), right / confusion.sum(axis=1)


def table(confusion):
    """The confusion matrix with precision and recall beside it, as text to print."""
    digits = range(len(confusion))
    shares = ([f"{share:.1%}" for share in part] for part in precision_and_recall(confusion))
    rows = zip(digits, *confusion.T, *shares, strict=True)
    return command.table(("actual", *digits, "precision", "recall"), rows)
