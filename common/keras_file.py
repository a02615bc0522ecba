"""The network of a `.keras` file, loaded safely or not at all: nothing that it holds is run."""

import re
import zipfile

import numpy as np

from common import files, set_keras
from common.command import Failure

SAVE = 'save it with model.save("mine.keras")'
CONVERT = (
    "convert it where you trust it: keras.models.load_model(FILE, compile=False)"
    '.save("mine.keras"), or build the network, fill it with load_weights(FILE), and save that'
)


def read(path):
    """The Keras model of a `.keras` file as it was saved; raises `Failure` where it is none."""
    name = files.show(path)
    if path.is_dir() and (path / "saved_model.pb").exists():
        raise Failure(f"{name} is a SavedModel, and only .keras files are loaded: {CONVERT}")
    files.check_input(path, remedy=f"name a .keras file: {SAVE}")
    if path.suffix in (".h5", ".hdf5"):
        raise Failure(f"{name} is HDF5, from which nothing is loaded safely: {CONVERT}")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise Failure(f"{name} is truncated or not a .keras file: {SAVE}")

    import keras

    from common import first_convolution  # noqa: F401 (known to Keras then: our CNN has one)

    check_version(keras.__version__, name)
    set_keras()
    try:
        network = keras.models.load_model(path, compile=False, safe_mode=True)
        inputs = network.inputs
    except Exception as error:  # of as many types as there are ways to write such a file
        raise Failure(
            f"{name} is truncated, of a newer Keras, or holds what is not loaded safely, such as a "
            "Lambda or a class of one's own: save the same network made of Keras's own layers "
            f"({files.reason(error):.150})"
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
