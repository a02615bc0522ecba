"""The logits of a model that ends in a softmax, or in sigmoids.

An attack differentiates the logits: where a network is sure, its probabilities round to 0 and 1
and their gradient to zero.

What an operation does is seen by trying it on a few numbers, whatever it is called.
"""

import numpy as np

SQUASHED = "softmax", "sigmoid"
COARSE = "float16", "bfloat16"
# Of two logits, what may be the rounding of their difference, as a share of the largest: some
# dozens of roundings of float32, in which the sums run, and a few of the half precisions.
ROUNDING = {"float16": 2.0**-8, "bfloat16": 2.0**-5}
ROUNDING_SINGLE = 2.0**-18


def rounding(model):
    """How far apart two logits of a model are that are not equal but for rounding, as a share of
    the largest logit of the image: by the coarsest numbers that a layer computes in."""
    inner = (rounding(layer) for layer in getattr(model, "layers", ()))
    return max(ROUNDING.get(getattr(model, "compute_dtype", ""), ROUNDING_SINGLE), *inner, 0)


def logits_of(model):
    """A Keras model with the same weights as `model`, less the softmax or sigmoids at its end.

    They may be the activation of the last layer, stand alone, or lie at the end of a model within
    the model; what comes after them may give their numbers another type or shape.  A last layer in
    half precision is computed in float32.  The weights are shared, not copied, and the layers are
    of Keras's own kinds: the result can be saved and cloned where `model` can.
    Raises ValueError for a model that ends in something else, or does not show its layers.
    """
    logits = _logits_of(model)
    if logits is model:
        raise ValueError(f"the model {model.name} does not end in a softmax, but in logits already")
    return logits


def ends_in_logits(model):
    """Whether a Keras model is seen to end in a linear layer, and so in no softmax."""
    try:
        return _logits_of(model) is model
    except ValueError:
        return False


def _logits_of(model):
    """`logits_of`, and the model itself where it is seen to end in logits."""
    import keras

    output = tensor = _output(model)
    operation, inputs, effect = _last(tensor)
    if effect in SQUASHED:  # alone: the layer before it gives the logits
        (tensor,) = inputs
        operation, inputs, _ = _last(tensor)
    alone = tensor is not output
    activation = None if alone else _activation(operation)
    if isinstance(operation, keras.Model) and not (alone and tensor.dtype not in COARSE):
        inner = _logits_of(operation)
        if inner is operation:
            return model
        tensor = inner(inputs)
    elif activation in SQUASHED or _is_coarse(operation):
        tensor = _anew(operation, *inputs)
    elif activation == "nothing":
        return model
    elif not alone:
        raise ValueError(
            f"the model {model.name} does not end in a softmax or in sigmoids that could be left "
            f"out, but in {operation.name}: make it without them.  The mean of several networks "
            "has the logits keras.ops.logsumexp(keras.ops.stack([keras.ops.log_softmax(z) for z in "
            "zs]), axis=0), where zs are the logits of each"
        )
    if tensor.shape != output.shape:
        tensor = keras.layers.Reshape(output.shape[1:])(tensor)
    return keras.Model(model.inputs, tensor, name=model.name)


def _output(model):
    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1:
        raise ValueError(
            f"the model {model.name} does not show its last layer: make it from keras.Input to "
            "its logits, without a softmax or sigmoids"
        )
    return outputs[0]


def _last(tensor):
    """The last operation (layer or model) that does more than pass its numbers on.

    Returns it, the tensors that it is fed, and its effect if there is but one of them.
    """
    import keras

    while True:
        operation, node, _ = tensor._keras_history
        inputs = operation._inbound_nodes[node].input_tensors
        if len(inputs) != 1:
            return operation, inputs, None
        effect = _effect(keras.Model(*inputs, tensor), inputs[0].shape)
        if effect != "nothing":
            return operation, inputs, effect
        (tensor,) = inputs


def _effect(function, shape):
    """What a function does to a tensor of this shape: "nothing", one of SQUASHED, or None."""
    z = _numbers(shape)
    powers = np.exp(z)
    try:
        found = np.asarray(function(z), np.float64)
    except Exception:  # of as many types as there are functions
        return None
    if np.array_equal(found.ravel(), z.ravel()):
        return "nothing"
    softmax = powers / powers.sum(axis=-1, keepdims=True)
    for effect, expected in zip(SQUASHED, (softmax, powers / (1 + powers)), strict=True):
        if found.size == z.size and np.allclose(found.ravel(), expected.ravel(), rtol=0.02, atol=0):
            return effect
    return None


def _numbers(shape):
    """Two rows of numbers between 0 and 1, where clipping does nothing, exact in any precision."""
    shape = [2, *(size or 3 for size in shape[1:])]
    return (np.random.default_rng(0).integers(1, 16, shape) / 16).astype(np.float32)


def _activation(layer):
    """What the activation of a layer does, if it has one."""
    activation = getattr(layer, "activation", None)
    return _effect(activation, (None, 10)) if callable(activation) else None


def _is_coarse(layer):
    quantized = getattr(layer, "quantization_mode", None)
    return getattr(layer, "compute_dtype", None) in COARSE and not quantized


def _anew(layer, x):
    """What a layer makes of x before its softmax or sigmoids, and in float32.

    It comes out of a layer of the same kind with the same variables.  Raises ValueError where the
    layer's configuration does not say all.
    """
    shared = {variable.name: variable for variable in layer.weights}
    squashed = _activation(layer) in SQUASHED
    try:
        config = layer.get_config() | ({"activation": "linear"} if squashed else {})
        anew = type(layer).from_config(config | ({"dtype": "float32"} if _is_coarse(layer) else {}))
        anew.add_weight = lambda *_, name, **__: shared[name]
        anew.build(x.shape)
        del anew.add_weight
        z = _numbers(x.shape)
        found = layer.activation(anew(z)) if squashed else anew(z)
        before, after = (np.asarray(part, np.float64) for part in (layer(z), found))
        if not np.linalg.norm(after - before) < 0.05 * np.linalg.norm(before):
            raise ValueError("it does something else then")
    except (KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(f"the layer {layer.name} cannot be made anew: {error}") from error
    return anew(x)
