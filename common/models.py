"""The three classifiers, from the simplest up.

    softmax  784-10                 softmax regression: one linear map
    mlp      784-300-100-10, ReLU   a multilayer perceptron
    cnn      conv 5x5x32, pool, conv 5x5x64, pool, dense 1024, dropout, dense 10

Input (n, 28, 28) float32 in [0, 1]; output logits (n, 10), without the softmax, because the
attacks and figures work on logits.  Keras is imported when a model is made, not before, so
that a script can answer `--help` at once.
"""

import numpy as np

from common import files
from common.command import Failure

NAMES = ("softmax", "mlp", "cnn")
TITLES = {"softmax": "softmax regression", "mlp": "MLP", "cnn": "CNN"}


def build(name):
    """A new, untrained Keras model.  Raises `Failure` for a name that is not one of `NAMES`."""
    if name not in NAMES:
        raise Failure(f"unknown model {name!r}: choose one of {', '.join(NAMES)}")

    import keras
    from keras import layers

    image = keras.Input((28, 28))
    if name == "softmax":
        stack = [layers.Flatten(), layers.Dense(10)]
    elif name == "mlp":
        stack = [
            layers.Flatten(),
            layers.Dense(300, activation="relu"),
            layers.Dense(100, activation="relu"),
            layers.Dense(10),
        ]
    else:
        stack = [
            layers.Reshape((28, 28, 1)),
            # ReLU after the pool is the same function as ReLU before it, on a quarter of
            # the values.
            layers.Conv2D(32, 5, padding="same"),
            layers.MaxPooling2D(),
            layers.ReLU(),
            layers.Conv2D(64, 5, padding="same"),
            layers.MaxPooling2D(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(1024, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10),
        ]
    return keras.Sequential([image, *stack], name=name)


def weights_path(name):
    """Where the trained weights of a model lie."""
    return files.WEIGHTS / f"{name}.weights.h5"


def train_command(name):
    """The command that trains a model."""
    if name == "softmax":
        return "python logreg_softmax/train.py"
    return f"python common/train_mnist.py --model {name}"


def load(name, path=None):
    """A trained model, from `path` or from common/weights.

    Raises `Failure` when the file is missing, broken, or holds the weights of another model.
    """
    path = weights_path(name) if path is None else path
    retrain = f"run `{train_command(name)}` first"
    # Before `build`, which imports TensorFlow: the answer comes at once.
    if name in NAMES and not path.exists():
        raise Failure(f"{files.show(path)} not found: {retrain}")
    model = build(name)
    try:
        model.load_weights(path)
    except OSError as error:
        raise Failure(
            f"{files.show(path)} is truncated or not a weights file: {retrain}"
        ) from error
    except Exception as error:  # Keras raises many types for shapes and layers that differ
        raise Failure(
            f"{files.show(path)} does not hold the weights of the {TITLES[name]}: {retrain}"
        ) from error
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise Failure(f"{files.show(path)} holds weights that are not finite numbers: {retrain}")
    return model


def predict(model, x, batch_size=1000):
    """Logits (n, 10) float32 of images (n, 28, 28) float32, a batch at a time."""
    if not len(x):
        return np.zeros((0, model.output_shape[-1]), np.float32)
    return model.predict(x, batch_size=batch_size, verbose=0)


def classify(model, x):
    """Predicted labels (n,) int64 of images (n, 28, 28)."""
    return predict(model, x).argmax(axis=1)


def softmax(logits):
    """Probabilities (n, 10) from logits (n, 10)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
