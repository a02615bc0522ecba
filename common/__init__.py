"""What every method shares: the digits, the models, the figures, the command line.

Importing this package settles, before anyone imports TensorFlow, that Keras runs on
TensorFlow and that TensorFlow starts without its log lines.  It imports neither.
"""

import logging
import os
import sys

from common.quiet import QuietTensorFlow

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.meta_path.insert(0, QuietTensorFlow())
# A function is traced anew for each model: TensorFlow would warn of that.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
