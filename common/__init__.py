"""What every method shares: the digits, the models, the figures, the command line.

Importing this package settles that Keras runs on TensorFlow, with float32 and channels last
whatever ~/.keras/keras.json says, and that TensorFlow starts without its log lines.  It imports
neither.
"""

import logging
import os
import sys

from common import startup

if "keras" in sys.modules:
    startup.set_keras()
os.environ["KERAS_BACKEND"] = "tensorflow"
# TensorFlow would use oneDNN only where the processor has AVX512-VNNI or AVX-VNNI; on the others
# convolutions are twice as fast with it too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.meta_path.insert(0, startup.Finder())
# A function is traced anew for each model: TensorFlow would warn of that.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
