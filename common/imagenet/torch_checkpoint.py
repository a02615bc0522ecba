"""A reader of PyTorch's checkpoints that can make tensors and nothing else.

The format is the one PyTorch wrote before version 1.6: pickles of a magic number, the protocol
version, the byte order, the tensors' descriptions, and the storages' keys; then the storages' raw
data, in the order of the keys, each with its number of elements before it.
"""

import io
import pickle
from collections import OrderedDict

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
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
        kind, dtype, key, _device, elements, view = identity
        if kind != "storage" or view is not None or dtype not in STORAGES.values():
            raise pickle.UnpicklingError(f"{kind!r} is not a plain storage")
        return dtype, key, elements


def _describe(storage, offset, shape, strides, requires_grad, hooks):
    return storage, offset, shape, strides


def read_checkpoint(content):
    """Read a legacy PyTorch checkpoint from bytes into a dict: name -> NumPy array.

    No code can run: names other than those of a tensor's parts are refused.  Raises
    `pickle.UnpicklingError` for such a name and for a tensor that reaches outside its storage.
    """
    file = io.BytesIO(content)

    def unpickle():
        return _TensorUnpickler(file).load()

    if unpickle() != MAGIC or unpickle() != PROTOCOL or not unpickle()["little_endian"]:
        raise pickle.UnpicklingError("not a legacy PyTorch checkpoint")
    described = unpickle()
    keys = unpickle()

    dtypes = {key: (np.dtype(dtype), n) for (dtype, key, n), *_ in described.values()}
    storages = {}
    for key in keys:
        dtype, elements = dtypes[key]
        if int.from_bytes(file.read(8), "little") != elements:
            raise pickle.UnpicklingError(f"storage {key} has another size than its tensor says")
        data = file.read(elements * dtype.itemsize)
        storages[key] = np.frombuffer(data, dtype, elements)

    tensors = {}
    for name, ((_, key, _), offset, shape, strides) in described.items():
        storage = storages[key]
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if offset < 0 or min((*shape, *strides), default=0) < 0 or last >= len(storage):
            raise pickle.UnpicklingError(f"{name} reaches outside its storage")
        # Many tensors were saved as transposed views: their strides are not the shape's own.
        view = np.lib.stride_tricks.as_strided(
            storage[offset:], shape, [step * storage.itemsize for step in strides]
        )
        tensors[name] = np.array(view)
    return tensors
