"""What happens while TensorFlow is imported, whoever imports it.

TensorFlow 2.18 to 2.21 write a few log lines straight to the process's stderr at their import,
whatever TF_CPP_MIN_LOG_LEVEL says (TensorFlow issue 100442); they are held back.
"""

import importlib.abc
import importlib.machinery
import os
from contextlib import contextmanager


class Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as Python would, and has it loaded without its log lines."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                with without_log_lines():
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
