"""The network of a `.keras` file, loaded safely or not at all, and made fit for attack.

Nothing that the file holds is run.  What the network needs in order to take images in [0, 1] and
to give logits becomes a part of the model: another range of its pixels, an image without channels
or as one long row, the softmax at its end left out.
"""

import re
import zipfile
from contextlib import contextmanager

import numpy as np

from common import files, set_keras
from common.command import Failure
from common.search import checks
from common.search.logits import logits_of

REMEDY = (
    'save the network with model.save("mine.keras"); an .h5 of it that you trust is made one by '
    'keras.models.load_model(FILE, compile=False).save("mine.keras"); of a SavedModel or a file of '
    "Keras 2 save the weights there (model.save_weights), and of weights build the network here, "
    "fill it with load_weights(FILE), and save that"
)

# What a network may be fed for pixels p in [0, 1]: scale * p + offset.
PIXELS = {"0..1": (1, 0), "0..255": (255, 0), "-1..1": (2, -1)}
# The two other ways of Keras's own networks: blue, green and red of pixels up to 255, less their
# mean over ImageNet's training set; and mean and spread of red, green and blue.
KINDS = (*PIXELS, "caffe", "torch")
CAFFE = np.array([103.939, 116.779, 123.68], np.float32)
TORCH = {"mean": (0.485, 0.456, 0.406), "variance": (0.229**2, 0.224**2, 0.225**2)}
SIDE = 224  # of photographs, for a network that takes any


def read(path):
    """The Keras model of a `.keras` file as it was saved; raises `Failure` where it is none."""
    name = files.show(path)
    files.check_input(path, remedy=REMEDY)
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise Failure(f"{name} is truncated or not a .keras file: {REMEDY}")

    import keras

    from common.networks import first_convolution  # noqa: F401 (known to Keras then: our CNN has one)

    check_version(keras.__version__, name)
    set_keras()
    try:
        network = keras.models.load_model(path, compile=False, safe_mode=True)
        inputs = network.inputs
    except Exception as error:  # of as many types as there are ways to write such a file
        # Keras repeats the whole configuration; the first sentence below it names the class.
        cause = files.reason(error.__context__ or error).partition(". ")[0]
        raise Failure(
            f"{name} is truncated, of another Keras, or holds what is not loaded safely, such as a "
            f"Lambda or a class of one's own ({cause}): {REMEDY}"
        ) from error
    if len(inputs) != 1:
        raise Failure(f"{name} has {len(inputs)} inputs, not one for the images")
    if not all(np.isfinite(weights).all() for weights in network.get_weights()):
        raise Failure(f"{name} holds weights that are not finite numbers: train it again")
    return network


def check_version(version, name):
    """Raise `Failure` for a Keras in which loading a file is known to run what it holds."""
    numbers = tuple(map(int, re.findall(r"\d+", version)[:3]))
    if numbers < (3, 12, 4) or numbers[:2] == (3, 13):
        raise Failure(
            f"{name} is not loaded by Keras {version}, which has known holes where it loads files: "
            'pip install --upgrade "keras>=3.12.4,!=3.13.*"'
        )


def load(path, shape, pixels):
    """Two models of a file for images of `shape` in [0, 1]: to attack, with logits for output, and
    to judge, the network as it is, which alone says what its answer is.

    pixels: one of `KINDS`.  Raises `Failure` for whatever cannot be loaded, or attacked.
    """
    network = read(path)
    with naming(path):
        return pair(network, shape, pixels)


@contextmanager
def naming(path):
    """Turn a `ValueError` of the block into the `Failure` that names the file."""
    try:
        yield
    except ValueError as error:
        raise Failure(f"{files.show(path)}: {error}") from error


def pair(network, shape, pixels):
    """The two models of `load`."""
    return fit(network, shape, pixels), fit(network, shape, pixels, as_it_is=True)


def fit(network, shape, pixels, *, as_it_is=False):
    """The model that takes images of `shape` in [0, 1] and gives the logits of `network`.

    A network of one channel sees images in colour by their luminance.  Of one output z they are 0
    and z.  as_it_is: with the softmax or sigmoids at its end, in its own precision; of one
    probability p the two are 0.5 and p.  Raises ValueError where there is no such model.
    """
    import keras

    x = image = keras.Input(shape)
    if is_grey(network) and shape[2:] == (3,):
        x = keras.ops.image.rgb_to_grayscale(image)
        shape = (*shape[:2], 1)
    form = fed(network, shape)
    x = x if form == shape else keras.layers.Reshape(form)(x)
    logits = without_softmax(network)
    z = (network if as_it_is else logits)(scaled(x, pixels))
    if is_binary(network):
        # Here, not in the network, one of whose layers may have the name of this one.
        both = keras.layers.Dense(2)
        z = both(z)
        half = 0.5 if as_it_is and logits is not network else 0
        both.set_weights([np.array([[0, 1]], np.float32), np.array([half, 0], np.float32)])
    model = keras.Model(image, z, name=network.name)
    if not as_it_is:
        checks.count_classes(model, np.zeros((2, *image.shape[1:]), np.float32))
    return model


def fed(network, shape):
    """The shape in which images of `shape` go into the network: with channels, without, or flat.

    Raises ValueError where they do not fit it.
    """
    takes = tuple(network.inputs[0].shape[1:])
    without = shape[:-1] if shape[-1] == 1 else shape
    for form in (shape, (*shape, 1), without, (int(np.prod(shape)),)):
        if len(takes) == len(form) and all(
            size in (None, given) for size, given in zip(takes, form, strict=True)
        ):
            return form
    raise ValueError(
        f"it takes images {takes}, and these are {shape}: give samples of its size and channels "
        "with --samples"
    )


def scaled(x, pixels):
    """The Keras tensor that the network is fed, for the tensor x of pixels in [0, 1]."""
    from keras import layers, ops

    if pixels == "torch":
        return layers.Normalization(**TORCH)(x)
    if pixels == "caffe":
        return 255 * ops.flip(x, axis=-1) - CAFFE
    scale, offset = PIXELS[pixels]
    return x if pixels == "0..1" else layers.Rescaling(scale, offset)(x)


def without_softmax(network):
    """`network` less the softmax or sigmoids at its end; itself where it is not seen to have any.

    Raises ValueError where it has one output and its end is not known.
    """
    try:
        return logits_of(network)
    except ValueError:
        if is_binary(network):
            raise
        return network  # and refused where it gives probabilities (checks.py)


def ending(network):
    """What becomes of the end of a network, for the line that says how it is used."""
    if is_binary(network):
        return ", one output z: class 1 where z > 0"
    softmax = without_softmax(network) is not network
    return ", without the softmax or sigmoids at its end" if softmax else ""


def is_grey(network):
    """Whether a network takes images of one channel."""
    takes = tuple(network.inputs[0].shape[1:])
    return len(takes) == 2 or takes[2:] == (1,)


def is_binary(network):
    """Whether a network has one output for an image."""
    return tuple(network.outputs[0].shape[1:]) == (1,)


def photograph_shape(network):
    """The shape (height, width, 3) of the photographs that a network takes.

    Raises ValueError for a network that takes none.
    """
    takes = tuple(network.inputs[0].shape[1:])
    if len(takes) not in (2, 3) or takes[2:] not in ((), (None,), (1,), (3,)):
        raise ValueError(
            f"it takes images {takes}, and a photograph is (height, width, 3), or grey"
        )
    return takes[0] or SIDE, takes[1] or SIDE, 3
