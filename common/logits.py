"""The logits of a model that ends in a softmax.

An attack differentiates the logits: where a network is sure, its probabilities round to 0 and 1
and their gradient to zero.
"""


def logits_of(model):
    """A Keras model with the same weights as `model`, less the softmax at its end.

    The softmax may be the activation of the last layer, a layer of its own, or lie at the end of
    a model within the model.  The weights are shared, not copied.
    Raises ValueError for a model that does not end in a softmax, or does not show its layers.
    """
    import keras

    operation, x = _end(model)
    activation = getattr(operation, "activation", None)
    if isinstance(operation, keras.Model):
        logits = logits_of(operation)(x)
    elif type(operation).__name__ == "Softmax":  # a layer, or keras.ops.softmax
        logits = x
    elif activation is not keras.activations.softmax:
        raise ValueError(
            f"the model {model.name} does not end in a softmax, but in {operation.name}"
        )
    elif isinstance(operation, keras.layers.Activation):
        logits = x
    else:
        logits = _without_activation(operation, x.shape)(x)
    return keras.Model(model.inputs, logits, name=model.name)


def ends_in_logits(model):
    """Whether a Keras model is seen to end in a linear layer, and so in no softmax."""
    import keras

    try:
        operation, _ = _end(model)
    except ValueError:
        return False
    if isinstance(operation, keras.Model):
        return ends_in_logits(operation)
    return getattr(operation, "activation", None) is keras.activations.linear


def _end(model):
    """The last operation of a model (a layer, or a model within it), and what it is fed."""
    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1:
        raise ValueError(
            f"the model {model.name} does not show its last layer: make it from keras.Input to "
            "its logits, and leave out the softmax"
        )
    operation, node, _ = outputs[0]._keras_history
    return operation, operation._inbound_nodes[node].input_tensors[0]


def _without_activation(layer, shape):
    """A layer of the same kind, with the same weights, that does not apply its activation.

    shape: of its input.  Raises ValueError for a layer that its configuration does not describe.
    """
    shared = {variable.name: variable for variable in layer.weights}
    try:
        linear = type(layer).from_config(layer.get_config() | {"activation": "linear"})
        linear.add_weight = lambda *_, name, **__: shared[name]
        linear.build(shape)
        del linear.add_weight
    except (KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"the layer {layer.name} cannot be made anew without its softmax: {error}"
        ) from error
    return linear
