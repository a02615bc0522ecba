"""What every method shares.  Importing it settles that Keras runs on TensorFlow, which starts
without its log lines; it imports neither."""

import importlib.abc
import importlib.machinery
import logging
import os
import sys


def set_keras():
    """Give Keras its standard number and image format, whatever ~/.keras/keras.json says.

    Called before a model is made or read.  A model's own dtype policy stays free.  Raises
    `ImportError` where Keras runs on another backend than TensorFlow.
    """
    import keras

    if keras.config.backend() != "tensorflow":
        raise ImportError(
            f"Keras was imported earlier and runs on {keras.config.backend()}: import `common` "
            "before it, or set KERAS_BACKEND=tensorflow"
        )
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


class QuietTensorFlow(importlib.abc.MetaPathFinder):
    """Holds back the log lines that TensorFlow 2.18 to 2.21 write to file descriptor 2 at their
    import, whatever TF_CPP_MIN_LOG_LEVEL says (TensorFlow issue 100442)."""

    def find_spec(self, name, path=None, target=None):
        find = importlib.machinery.PathFinder.find_spec
        if name != "tensorflow" or (spec := find(name, path, target)) is None:
            return None
        load = spec.loader.exec_module

        def quietly(module):
            stderr = os.dup(2)
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            try:
                load(module)
            finally:
                os.dup2(stderr, 2)
                os.close(stderr)

        spec.loader.exec_module = quietly
        return spec


if "keras" in sys.modules:
    set_keras()
os.environ["KERAS_BACKEND"] = "tensorflow"
# TensorFlow would use oneDNN only where the processor has AVX512-VNNI or AVX-VNNI; on the others
# convolutions are twice as fast with it too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.meta_path.insert(0, QuietTensorFlow())
# A function is traced anew for each model: TensorFlow would warn of that.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
