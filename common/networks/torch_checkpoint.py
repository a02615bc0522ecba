"""A reader of PyTorch's checkpoints that can make tensors and nothing else.

The format is the one PyTorch wrote before version 1.6: pickles of a magic number, the protocol
version, the byte order, the tensors' descriptions, and the storages' keys; then the storages' raw
data, in the order of the keys, each with its number of elements before it.  Nothing is checked: the
one file that is read is known by its SHA-256.
"""

import io
import pickle
from collections import OrderedDict

import numpy as np

STORAGES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


class _TensorUnpickler(pickle.Unpickler):
    """Knows the three names that a checkpoint of tensors needs, and refuses all others.

    A tensor becomes a tuple that describes it, since its numbers come later in the file.
    """

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _describe
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a tensor")

    def persistent_load(self, identity):
        _kind, dtype, key, _device, elements, _view = identity
        return dtype, key, elements


def _describe(storage, offset, shape, strides, requires_grad, hooks):
    return storage, offset, shape, strides


def read_checkpoint(content):
    """Read a legacy PyTorch checkpoint from bytes into a dict: name -> NumPy array.

    No code can run: for a name other than those of a tensor's parts it raises
    `pickle.UnpicklingError`.
    """
    file = io.BytesIO(content)
    _magic, _version, _byte_order, described, keys = (
        _TensorUnpickler(file).load() for _ in range(5)
    )
    dtypes = {key: (np.dtype(dtype), n) for (dtype, key, n), *_ in described.values()}
    storages = {}
    for key in keys:
        dtype, elements = dtypes[key]
        file.read(8)  # the number of elements again
        storages[key] = np.frombuffer(file.read(elements * dtype.itemsize), dtype)

    tensors = {}
    for name, ((_, key, _), offset, shape, strides) in described.items():
        storage = storages[key]
        # Many tensors were saved as transposed views: their strides are not the shape's own.
        view = np.lib.stride_tricks.as_strided(
            storage[offset:], shape, [step * storage.itemsize for step in strides]
        )
        tensors[name] = np.array(view)
    return tensors
