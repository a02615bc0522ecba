"""Our models in PyTorch, and adv-lib without the packages that its attacks do not need."""

import functools
import importlib.abc
import importlib.machinery
import sys
import types

import numpy as np

from common.networks import mnist


def in_torch(model, x):
    """One of our classifiers as a PyTorch module from (n, 1, 28, 28) to logits.

    x: images (n, 28, 28) on which the logits of both have to agree.
    """
    import torch
    from torch.nn import functional

    activations = {"linear": lambda z: z, "relu": torch.relu, "sigmoid": torch.sigmoid}
    steps = []
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "MaxPooling2D":
            steps.append(lambda z: functional.max_pool2d(z, 2))
        elif kind == "ReLU":
            steps.append(torch.relu)
        elif kind == "Flatten":  # Keras has the channels last
            steps.append(lambda z: z.permute(0, 2, 3, 1).flatten(1))
        elif layer.weights:
            kernel, bias = (torch.tensor(array) for array in layer.get_weights())
            if kind == "Dense":
                steps.append(lambda z, kernel=kernel, bias=bias: z @ kernel + bias)
            else:
                how = {"stride": layer.strides[0], "padding": layer.padding}
                kernel = kernel.permute(3, 2, 0, 1).contiguous()
                steps.append(functools.partial(functional.conv2d, weight=kernel, bias=bias, **how))
            steps.append(activations[layer.activation.__name__])

    class Network(torch.nn.Module):
        def forward(self, x):
            for step in steps:
                x = step(x)
            return x

    network = Network().eval()
    logits = network(torch.tensor(x[:, np.newaxis])).numpy()
    np.testing.assert_allclose(logits, mnist.predict(model, x), rtol=1e-3, atol=1e-3)
    return network


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torchvision and visdom, which adv-lib imports for parts that are not used here."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] in ("torchvision", "visdom"):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _StandIn(spec.name)

    def exec_module(self, module):
        module.__path__ = []


class _StandIn(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def adv_lib_attacks():
    """adv_lib.attacks, imported."""
    sys.meta_path.append(_StandIns())
    import adv_lib.attacks

    return adv_lib.attacks
