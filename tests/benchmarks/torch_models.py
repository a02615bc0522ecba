"""Our three models in PyTorch, and adv-lib without the packages that its attacks do not need."""

import importlib.abc
import importlib.machinery
import sys
import types

import numpy as np

from common import models


def in_torch(model, x):
    """One of the three classifiers as a PyTorch module from (n, 1, 28, 28) to logits.

    x: images (n, 28, 28) on which the logits of both have to agree.
    """
    import torch
    from torch.nn import functional

    weights = [torch.tensor(array) for array in model.get_weights()]

    class Network(torch.nn.Module):
        def forward(self, x):
            rest = list(weights)
            while rest[0].ndim == 4:
                kernel, bias, *rest = rest
                x = functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=2)
                x = functional.relu(functional.max_pool2d(x, 2))
            # Keras flattens with the channels last.
            x = x.permute(0, 2, 3, 1).flatten(1)
            while len(rest) > 2:
                kernel, bias, *rest = rest
                x = functional.relu(x @ kernel + bias)
            return x @ rest[0] + rest[1]

    network = Network().eval()
    logits = network(torch.tensor(x[:, np.newaxis])).numpy()
    np.testing.assert_allclose(logits, models.predict(model, x), rtol=1e-3, atol=1e-3)
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
