"""Whatever is exchanged in a layer, of any kind that Keras has, no answer is that of before."""

import inspect
import itertools

import keras
import numpy as np
import tensorflow as tf

from common.networks import mnist

layers = keras.layers


def arguments(name):
    """What a kind of layer is made with: the arguments that have no default."""
    needed = {
        parameter.name
        for parameter in inspect.signature(getattr(layers, name)).parameters.values()
        if parameter.default is parameter.empty and parameter.kind < parameter.VAR_POSITIONAL
    }
    usual = {
        "activation": "tanh",
        "axes": 1,
        "cell": layers.SimpleRNNCell(3),
        "cells": [layers.SimpleRNNCell(3)],
        "equation": "...a,ab->...b",
        "factor": 0.5,
        "filters": 3,
        "function": lambda x: 2 * x,
        "head_dim": 2,
        "height": 3,
        "height_factor": 0.5,
        "input_dim": 5,
        "kernel_size": 2,
        "key_dim": 2,
        "layer": layers.Dense(3, activation="tanh"),
        "layers": [layers.Rescaling(0.5)],
        "n": 2,
        "num_bins": 4,
        "num_heads": 2,
        "num_key_value_heads": 1,
        "num_query_heads": 2,
        "output_dim": 3,
        "output_shape": (3,),
        "output_size": 2,
        "pool_size": 2,
        "rate": 0.5,
        "scale": 2.0,
        "stddev": 0.5,
        "units": 3,
        "width": 3,
        "width_factor": 0.5,
    }
    special = {
        "Bidirectional": {"layer": layers.SimpleRNN(3)},
        "CategoryEncoding": {"num_tokens": 5},
        "Discretization": {"bin_boundaries": [0.3, 0.6]},
        "GroupNormalization": {"groups": 1},
        "IntegerLookup": {"vocabulary": [1, 2, 3]},
        "Permute": {"dims": (2, 1)},
        "RandomPosterization": {"factor": 3},
        "Reshape": {"target_shape": (3, 2)},
        "STFTSpectrogram": {"frame_length": 4, "frame_step": 2, "fft_length": 4},
    }
    return special.get(name) or {key: usual.get(key) for key in needed}


STRINGS = {
    "bilinear": "nearest",
    "channels_last": "channels_first",
    "concat": "sum",
    "full": "same",
    "nearest": "bilinear",
    "same": "valid",
    "valid": "same",
}
# Kept by Keras for every layer; of these the precision alone makes another network.
OF_EVERY_LAYER = vars(layers.Layer()).keys() - {"_dtype_policy"} | {"_is_layer"}
# Abstract kinds, those of other libraries, those that take text or boxes, and parts of others.
LEFT_OUT = {
    "Layer", "Wrapper", "InputLayer", "FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper",
    "StringLookup", "TextVectorization", "HashedCrossing", "MaxNumBoundingBoxes", "MelSpectrogram",
    "GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells",
    "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D",  # a quarter of a minute each
}  # fmt: skip
KINDS = sorted(
    name
    for name, kind in vars(layers).items()
    if inspect.isclass(kind)
    and issubclass(kind, layers.Layer)
    and kind.__name__ == name
    and name not in LEFT_OUT
)
SHAPES = [(4, 4, 3), (4, 3), (6,), (3, 4, 4, 2), (3, 4, 4, 4, 2)]
# Of a graph that is optimised.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}
CALLS = {
    "one input": lambda layer, x: layer(x),
    "a list of two": lambda layer, x: layer([x, 0.5 * x]),
    "two inputs": lambda layer, x: layer(x, x),
}


def network(name):
    """A network with one layer of a kind, and two images for it; None where it takes others."""
    for dtype, shape, call in itertools.product(("float32", "int32"), SHAPES, CALLS.values()):
        x = keras.Input(shape, dtype=dtype)
        images = np.random.default_rng(0).uniform(0, 5, (2, *shape)).astype(dtype)
        try:
            layer = getattr(layers, name)(**arguments(name))
            model = keras.Model(x, layers.Flatten()(call(layer, x)))
            model(images)
        except Exception:  # of as many types as there are kinds
            continue
        return model, images
    return None


def exchanges(holder, key):
    """Something else in the place of holder[key], once or more; at last it is as it was."""
    before = holder[key]
    if isinstance(before, dict | list):
        for inner in list(before) if isinstance(before, dict) else range(len(before)):
            if not isinstance(before[inner], keras.Variable):  # Keras allows no new ones there
                yield from exchanges(before, inner)
    elif isinstance(before, np.ndarray) and before.dtype.kind == "f":
        before += 1
        yield
        before -= 1
    elif (other := another(before)) is not None:
        holder[key] = other
        yield
        holder[key] = before


def another(value):
    """A thing like `value` that is not it, or None."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float) or value is None:
        return 0.3
    if isinstance(value, str):
        return STRINGS.get(value)
    if isinstance(value, tuple) and value and all(isinstance(part, int) for part in value):
        return tuple(part + 1 for part in value)
    if isinstance(value, keras.Variable):
        return keras.Variable(value + 1)
    if isinstance(value, tf.Tensor):
        return value + 1
    if isinstance(value, keras.DTypePolicy):
        return keras.DTypePolicy("float64")
    if inspect.isfunction(value):
        return keras.activations.exponential
    return None


def compiles(model, x):
    """Whether a network that can be called can be called in a graph, too."""
    rows = tf.TensorSpec([None, *x.shape[1:]], x.dtype)
    call = tf.function(lambda x: model(x, training=False), input_signature=[rows])
    try:
        return bool(call.get_concrete_function())
    except Exception:  # of as many types as there are kinds
        return False


def test_whatever_is_exchanged_in_a_layer_counts():
    """The answer is then that of the network as it is, which is asked without being compiled."""
    count = 0
    keras.utils.set_random_seed(0)
    networks = [found for found in map(network, KINDS) if found]
    assert len(networks) > 90
    for model, x in networks:
        before = mnist.predict(model, x)
        for layer in model._flatten_layers(include_self=False):
            for attribute in sorted(vars(layer).keys() - OF_EVERY_LAYER):
                for _ in exchanges(vars(layer), attribute):
                    try:
                        now = model(x, training=False)
                        if np.allclose(now, before, **ROUNDING):
                            continue
                    except Exception:  # it cannot be called any more
                        continue
                    try:
                        found = mnist.predict(model, x)
                    except Exception:
                        if compiles(model, x):
                            raise
                        continue
                    count += 1
                    what = f"{layer.name}.{attribute}"
                    np.testing.assert_allclose(found, now, **ROUNDING, err_msg=what)
        np.testing.assert_allclose(mnist.predict(model, x), before, **ROUNDING)
    assert count > 200
