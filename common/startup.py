"""What happens while TensorFlow and Keras are imported, whoever imports them.

TensorFlow 2.18 to 2.21 write a few log lines straight to the process's stderr at their import,
whatever TF_CPP_MIN_LOG_LEVEL says (TensorFlow issue 100442); they are held back.  Keras takes
settings from ~/.keras/keras.json; the results here should not depend on them.  Matplotlib is not
imported where MPLBACKEND, which a notebook may have left, names a backend that is not there.
"""

import importlib.abc
import importlib.machinery
import os
from contextlib import contextmanager, suppress


class Finder(importlib.abc.MetaPathFinder):
    """Finds what is named below as Python would, and has them loaded as they should be."""

    def find_spec(self, fullname, path=None, target=None):
        surroundings = {
            "tensorflow": without_log_lines,
            "keras": with_standard_settings,
            "matplotlib": with_any_backend,
        }
        if fullname not in surroundings:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                with surroundings[fullname]():
                    load(module)

            spec.loader.exec_module = exec_module
        return spec


@contextmanager
def without_log_lines():
    """Send what is written to file descriptor 2 to nowhere."""
    try:
        stderr = os.dup(2)
    except OSError:  # closed: nothing will be seen anyway
        yield
        return
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextmanager
def with_any_backend():
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        import matplotlib

        with suppress(ValueError):  # our figures need none
            matplotlib.rcParams["backend"] = backend


@contextmanager
def with_standard_settings():
    yield
    set_keras()


def set_keras():
    """Give Keras its standard number and image format; a model's own dtype policy stays free.

    Raises `ImportError` where Keras runs on another backend than TensorFlow.
    """
    import keras

    if keras.config.backend() != "tensorflow":
        raise ImportError(
            f"Keras was imported earlier and runs on {keras.config.backend()}: import `common` "
            "before it, or set KERAS_BACKEND=tensorflow"
        )
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


def one_thread():
    """Have every operation of TensorFlow use one thread; returns whether it does.

    Then sums are taken in the same order whatever the number of cores.  TensorFlow takes the
    number before its first operation, and no other afterwards.
    """
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
    except RuntimeError:
        return os.environ.get("TF_NUM_INTRAOP_THREADS") == "1"
    return True
