"""The three classifiers, from the simplest up, and others like them.

    softmax  784-10                 softmax regression: one linear map
    mlp      784-300-100-10, ReLU   a multilayer perceptron
    cnn      conv 5x5x32, pool, conv 5x5x64, pool, dense 1024, dropout, dense 10

A name with "_adversarial", "_robust" or "_random_start" added is the same network after one of the
kinds of adversarial training; mlp_certified is the MLP trained on bounds of what any attack can do,
and strided_certified a convolutional network that is made for this training:

    strided  threshold of each pixel (conv 1x1x2, sigmoid), conv 5x5x32 and 4x4x64 with stride 2,
             dense 512, dense 10

What was not trained with the default settings has them in its name: strided_certified_eps0.1_seed1.

Fully connected networks of other sizes are named as in Szegedy et al. (2014), by the units of
their layers, with the activation added: fc100-100-10_sigmoid is 784-100-100-10, and fc10 has no
hidden layer.

Input (n, 28, 28) float32 in [0, 1]; output logits (n, 10), without the softmax, because the
attacks and figures work on logits.  Keras is imported when a model is made, for a quick `--help`.
"""

import argparse
import re
from pathlib import Path

import numpy as np

from common import files, set_keras
from common.command import Failure
from common.networks import weights_file
from common.search.logits import logits_of  # noqa: F401 (a part of this module)

NAMES = ("softmax", "mlp", "cnn")
# Those that can be trained on bounds.
BOUNDED = ("mlp", "strided")
TITLES = {"softmax": "softmax regression", "mlp": "MLP", "cnn": "CNN", "strided": "strided CNN"}
# What adversarial training adds to a name, and to a title, by what it trains on: one sign step,
# many projected ones, one from a random start, or bounds on what any attack can do.
SUFFIXES = {
    "sign": "_adversarial",
    "pgd": "_robust",
    "random-start": "_random_start",
    "bounds": "_certified",
}
TITLES_TRAINED = {
    "sign": "trained on sign steps",
    "pgd": "trained on projected steps",
    "random-start": "trained on random-start steps",
    "bounds": "trained on bounds",
    "augment": "on turned and shifted digits",
}
# What adversarial training withstands, or is to: the largest change of a pixel.
EPS = {"softmax": 0.1, "mlp": 0.1, "cnn": 0.3, "strided": 0.3}
# Of images that are worked on at a time: 6,000 digits, 33 photographs of 224 x 224.
MOST_BYTES = 20_000_000
ACTIVATIONS = ("sigmoid", "tanh", "relu")
# Of mlp_adversarial ("mlp", "sign"): the plain network, and what it was trained on.
TRAINED = {
    plain + suffix: (plain, attack)
    for attack, suffix in SUFFIXES.items()
    for plain in (BOUNDED if attack == "bounds" else NAMES)
} | {f"{plain}_augmented": (plain, "augment") for plain in ("mlp", "cnn")}
SETTING = re.compile(
    r"_(alpha|batch-size|epochs|eps|learning-rate|seed|steps)(\d[\d.]*(?:e-?\d+)?)"
)
FULLY_CONNECTED = re.compile(rf"fc(?:10|((?:[1-9]\d*-)+)10_({'|'.join(ACTIVATIONS)}))")


def known(name):
    """Whether `name` names a model that `build` makes."""
    if name in NAMES or FULLY_CONNECTED.fullmatch(name):
        return True
    kind, settings = split(name)
    if settings and kind.endswith("_augmented"):  # train_mnist.py keeps the one name
        return False
    return kind in TRAINED and name == variant(kind, settings)


def split(name):
    """What was trained, and the settings that are not its defaults, as text by name: of
    mlp_robust_seed1 "mlp_robust" and {"seed": "1"}."""
    return SETTING.sub("", name), dict(SETTING.findall(name))


def variant(name, settings):
    """The name of a model that was trained with other settings than the default ones."""
    return name + "".join(f"_{setting}{value}" for setting, value in settings.items())


def architecture(name):
    """The model whose network this is: that of `mlp_adversarial` is `mlp`."""
    return TRAINED.get(split(name)[0], (name,))[0]


def trained_eps(name):
    """The epsilon that a network is trained for, or would be."""
    return float(split(name)[1].get("eps", EPS.get(architecture(name), 0.1)))


def source_of(name):
    """The network from which examples against another are transferred: the same one trained
    plainly, or another."""
    plain = architecture(name)
    if plain != name and plain in NAMES:
        return plain
    return "mlp" if name in ("softmax", "cnn") or FULLY_CONNECTED.fullmatch(name) else "cnn"


def argument(text):
    """A command line argument that names a model."""
    if not known(text):
        raise argparse.ArgumentTypeError(_unknown(text))
    return text


def add_model(parser, default):
    """--model: one of these classifiers."""
    parser.add_argument("--model", type=argument, default=default, help="which classifier")


def _unknown(name):
    if name.endswith(".keras"):
        return f"{name!r}: this script takes no network of one's own; robustness.py is a good start"
    return (
        f"{name!r} is not a model: choose {', '.join(NAMES)}, one of them with "
        f"{', '.join(list(SUFFIXES.values())[:-1])} added, mlp_certified, strided_certified, "
        "cnn_augmented, or a fully connected one such as fc100-100-10_sigmoid"
    )


def title(name):
    """What figures and tables call a model; a file, by its name."""
    if str(name).endswith(".keras"):
        return Path(name).name
    if name in TITLES:
        return TITLES[name]
    kind, settings = split(name)
    if kind in TRAINED:
        plain, attack = TRAINED[kind]
        words = [TITLES[plain], TITLES_TRAINED[attack], *map(" ".join, settings.items())]
        return ", ".join(words)
    layers, _, activation = name.partition("_")
    return f"{layers.upper()}, {activation}" if activation else layers.upper()


def fully_connected(hidden, activation):
    """The name of a fully connected network with layers of `hidden` units: see the top."""
    return f"fc{'-'.join([*map(str, hidden), '10'])}" + (f"_{activation}" if hidden else "")


def _hidden_layers(name):
    """The (hidden units, activation) of a fully connected network, from its name."""
    name = {"softmax": "fc10", "mlp": "fc300-100-10_relu"}.get(name, name)
    hidden, activation = FULLY_CONNECTED.fullmatch(name).groups()
    return [int(units) for units in (hidden or "").split("-") if units], activation


def build(name):
    """A new, untrained Keras model.  Raises `Failure` for a name that names none."""
    if not known(name):
        raise Failure(f"unknown model: {_unknown(name)}")

    import keras
    from keras import layers

    from common.networks.first_convolution import Conv2D

    set_keras()
    plain = architecture(name)
    if plain == "strided":
        stack = [
            layers.Reshape((28, 28, 1)),
            # Two steep curves, at a third and two thirds: what is nearly black stays black, and
            # what is nearly white white, whatever epsilon adds to it.
            layers.Conv2D(
                2,
                1,
                activation="sigmoid",
                kernel_initializer=keras.initializers.Constant(30),
                bias_initializer=keras.initializers.Constant([-10, -20]),
            ),
            layers.Conv2D(32, 5, strides=2, activation="relu"),
            layers.Conv2D(64, 4, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dense(10),
        ]
    elif plain == "cnn":
        stack = [
            layers.Reshape((28, 28, 1)),
            # ReLU after the pool is the same function as ReLU before it, on a quarter of
            # the values.
            Conv2D(32, 5, padding="same"),
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
    else:
        units, activation = _hidden_layers(plain)
        hidden = [layers.Dense(n, activation=activation) for n in units]
        stack = [layers.Flatten(), *hidden, layers.Dense(10)]
    return keras.Sequential([keras.Input((28, 28)), *stack], name=name)


def weights_path(name):
    """Where the trained weights of a model lie: a file of one's own holds them itself."""
    return name if isinstance(name, Path) else files.WEIGHTS / f"{name}.weights.h5"


def train_command(name):
    """The command that trains a model."""
    if name == "softmax":
        return "python logreg_softmax/train.py"
    kind, settings = split(name)
    if kind in TRAINED:
        plain, attack = TRAINED[kind]
        if attack == "augment":
            return f"python common/train_mnist.py --model {plain} --augment"
        option = "" if attack == "sign" else f" --attack {attack}"
        option += "".join(f" --{setting} {value}" for setting, value in settings.items())
        return f"python method2_fgsm/adversarial_training.py --model {plain}{option}"
    if name in NAMES:
        return f"python common/train_mnist.py --model {name}"
    hidden, activation = _hidden_layers(name)
    layers = " ".join(["--hidden", *map(str, hidden)])
    return f"python common/train_mnist.py {layers}" + (
        f" --activation {activation}" if hidden else ""
    )


def load(name, path=None):
    """A trained model, from `path` or from common/weights.

    Raises `Failure` when the file is missing, broken, or holds the weights of another model.
    """
    if not known(name):
        raise Failure(f"unknown model: {_unknown(name)}")
    path = weights_path(name) if path is None else path
    retrain = f"run `{train_command(name)}` first"
    # Before `build`, which imports TensorFlow: the answer comes at once.
    weights_file.check(path, remedy=retrain)
    model = build(name)
    weights_file.fill(model, path, title=f"the {title(name)}", remedy=retrain)
    return model


def at_a_time(x):
    """How many images like x (n, ...) are worked on at a time, so that memory holds them."""
    return max(1, MOST_BYTES // max(1, x[:1].nbytes))


def predict(model, x, batch_size=1000):
    """Logits (n, classes) float32 of images (n, ...) float32, a batch at a time."""
    from common.search.compiled import forward

    batch_size = min(batch_size, at_a_time(x))
    # Keras's own loop, `model.predict`, copies all the images twice before it begins, and is not
    # made for several threads.
    starts = range(0, len(x), batch_size)
    logits = [forward(model, x[start : start + batch_size]).numpy() for start in starts]
    if not logits:
        return np.empty((0, getattr(model, "output_shape", (0,))[-1]), np.float32)
    return np.concatenate(logits, dtype=np.float32)


def classify(model, x):
    """Predicted labels (n,) int64 of images (n, 28, 28)."""
    return predict(model, x).argmax(axis=1)


def correctly_classified(classifiers, x, y, where, *, source=None, count=1):
    """The places of the digits that all `classifiers` get right, in order: int64 (k,).

    x: float32 (n, 28, 28).  y: integers (n,).  where: what the message calls these digits.
    source: the one digit that is wanted, if not all ten.  Raises `Failure` for fewer than `count`.
    """
    places = np.arange(len(y)) if source is None else np.flatnonzero(y == source)
    for model in classifiers:
        places = places[classify(model, x[places]) == y[places]]
    if len(places) < count:
        kind = "digits" if source is None else f"{source}s"
        raise Failure(
            f"{where} has {len(places)} correctly classified {kind}, not {count}: ask for fewer, "
            "give more (`python common/generate_5k.py --count` draws digits), or train again"
        )
    return places


def softmax(logits):
    """Probabilities (n, 10) from logits (n, 10)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
