"""Files of weights as Keras writes them: what they are, and into which model they go."""

import os
import warnings

import numpy as np

from common import files
from common.command import Failure


def check(path, *, remedy):
    """Raise `Failure` unless `path` names a file that may hold weights; it is not read yet."""
    if path.suffix != ".h5":
        raise Failure(
            f"{files.show(path)} is not a weights file of Keras: its name must end in .h5 or "
            f".weights.h5; {remedy}"
        )
    files.check_input(path, remedy=remedy)


def fill(model, path, *, title, remedy):
    """Fill a Keras model from a `.weights.h5` file, or one of Keras's older `.h5` files.

    title: what the message calls the model.  remedy: the way out.  Raises `Failure` when the file
    is missing, broken, holds the weights of another model or not all of this one's, or numbers
    that are not finite.
    """
    check(path, remedy=remedy)
    name = files.show(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.load_weights(path)
    except OSError as error:
        # HDF5 hides the system's reason (locked, no permission) in its own message.
        if error.errno:
            raise Failure(f"cannot read {name}: {os.strerror(error.errno)}; {remedy}") from error
        raise Failure(f"{name} is truncated or not a weights file: {remedy}") from error
    except Exception as error:  # Keras raises many types for shapes and layers that differ
        raise Failure(f"{name} does not hold the weights of {title}: {remedy}") from error
    if not all(np.isfinite(weights).all() for weights in model.get_weights()):
        raise Failure(f"{name} holds weights that are not finite numbers: {remedy}")
