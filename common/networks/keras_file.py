"""The network of a `.keras` file, loaded safely or not at all: nothing that it holds is run."""

import json
import re
import zipfile

import numpy as np

from common import files, set_keras
from common.command import Failure

SAVE = 'save it with model.save("mine.keras")'
REBUILD = "build the network here, fill it with load_weights(FILE), and save that"
CONVERT = (
    "convert an .h5 that you trust: keras.models.load_model(FILE, compile=False)"
    f'.save("mine.keras"); of weights alone {REBUILD}'
)
OLD = f"with the TensorFlow that made it load it, model.save_weights(FILE), then {REBUILD}"


def read(path):
    """The Keras model of a `.keras` file as it was saved; raises `Failure` where it is none."""
    name = files.show(path)
    if path.is_dir() and (path / "saved_model.pb").exists():
        raise Failure(f"{name} is a SavedModel, which Keras 3 does not load: {OLD}")
    files.check_input(path, remedy=f"name a .keras file: {SAVE}")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise Failure(f"{name} is truncated or not a .keras file: {SAVE}, or {CONVERT}")

    import keras

    from common.networks import first_convolution  # noqa: F401 (known to Keras then: our CNN has one)

    check_version(keras.__version__, name)
    set_keras()
    version = ""
    try:
        with zipfile.ZipFile(path) as archive:
            version = str(json.loads(archive.read("metadata.json"))["keras_version"])
        network = keras.models.load_model(path, compile=False, safe_mode=True)
        inputs = network.inputs
    except Exception as error:  # of as many types as there are ways to write such a file
        if version.startswith("2."):
            raise Failure(
                f"{name} is by Keras {version}, which is older than Keras 3: {OLD}"
            ) from error
        # Keras repeats the whole configuration; the first sentence below it names the class.
        cause = error.__context__ or error
        raise Failure(
            f"{name} is truncated, of a newer Keras, or holds what is not loaded safely, such as a "
            "Lambda or a class of one's own: save the same network made of Keras's own layers "
            f"({files.reason(cause).partition('. ')[0]})"
        ) from error
    if len(inputs) != 1:
        raise Failure(f"{name} has {len(inputs)} inputs, not one for the images")
    if "float" not in inputs[0].dtype:
        raise Failure(
            f"{name} takes whole numbers ({inputs[0].dtype}), which have no gradient: build it on "
            "keras.Input(shape) without a dtype, with the same weights, and save that"
        )
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
