"""Import TensorFlow without its start-up log lines.

TensorFlow 2.18 to 2.21 write a few lines straight to the process's stderr while they are being
imported, whatever TF_CPP_MIN_LOG_LEVEL says (TensorFlow issue 100442): oneDNN is on, no GPU was
found.  An import hook holds stderr back for exactly that import and passes on all the rest.
"""

import importlib.abc
import importlib.machinery
import os
import re
import sys
import tempfile
from contextlib import contextmanager

# "I0000 00:00:1795251681.556147 2432 port.cc:153] …" or "2026-11-21 08:50:00.123: I tensorflow/…"
LOG_LINE = re.compile(
    rb"[IWE]\d{4} [\d:.]+ +\d+ \S+\] "
    rb"|\d{4}-\d\d-\d\d [\d:.]+: [IWE] "
    rb"|WARNING: All log messages before absl"
    rb"|To enable the following instructions"
)


class QuietTensorFlow(importlib.abc.MetaPathFinder):
    """Finds `tensorflow` as Python would, and has it load with its log lines held back."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                with _without_log_lines():
                    load(module)

            spec.loader.exec_module = exec_module
        return spec


@contextmanager
def _without_log_lines():
    """Hold back what is written to file descriptor 2, then write it out less the log lines."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not LOG_LINE.match(line):
                    os.write(2, line)
