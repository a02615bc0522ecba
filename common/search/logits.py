"""The logits of a model that ends in a softmax, or in sigmoids.

An attack differentiates the logits: where a network is sure, its probabilities round to 0 and 1
and their gradient to zero.
"""

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

    They are the activation of the last layer, a Dense, or stand alone as the last layer; that may
    be the last one of a model within the model.  A last Dense in half precision is computed in
    float32.  The weights are shared, not copied, and the layers are of Keras's own kinds: the
    result can be saved and cloned where `model` can.  It is the model itself where that is seen to
    end in a linear layer already.
    Raises ValueError for a model that ends in something else, or does not show its layers.
    """
    import keras

    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1:
        raise ValueError(
            f"the model {model.name} does not show its last layer: make it from keras.Input to "
            "its logits, without a softmax or sigmoids"
        )
    squashing = keras.activations.softmax, keras.activations.sigmoid
    images, done = calls(model)
    layer, inputs, logits = done[-1]
    alone = isinstance(layer, keras.layers.Softmax) or (
        isinstance(layer, keras.layers.Activation) and layer.activation in squashing
    )
    if alone:
        here = layer, [], inputs[0]  # for a softmax of the images themselves
        layer, inputs, logits = next((call for call in done if call[2] is inputs[0]), here)
    activation, coarse = getattr(layer, "activation", None), logits.dtype in ROUNDING
    is_linear = activation is keras.activations.linear
    squashed = activation in squashing and not alone
    if isinstance(layer, keras.Model) and (coarse or not alone):
        inner = logits_of(layer)
        if inner is layer:
            return model
        logits = inner(inputs)
    elif type(layer) is keras.layers.Dense and (squashed or (coarse and is_linear)):
        logits = _linear(layer)(*inputs)
    elif coarse or not (alone or is_linear):
        raise ValueError(
            f"the model {model.name} does not end in a softmax or in sigmoids that could be left "
            f"out, but in {layer.name}: make it without them.  The mean of several networks "
            "has the logits keras.ops.logsumexp(keras.ops.stack([keras.ops.log_softmax(z) for z in "
            "zs]), axis=0), where zs are the logits of each"
        )
    elif not alone:
        return model
    return keras.Model(images, logits, name=model.name)


def calls(model):
    """What a Keras model does, in its order, to new inputs: these, and of each of its operations
    the operation itself, the tensors that go into it, and what comes out."""
    import keras

    done = []

    def call(operation, *args, **settings):
        fed = keras.tree.flatten((args, settings))
        tensors = [part for part in fed if isinstance(part, keras.KerasTensor)]
        done.append((operation, tensors, operation(*args, **settings)))
        return done[-1][2]

    graph = keras.Model(model.inputs, model.outputs)
    copy = keras.models.clone_model(graph, clone_function=lambda same: same, call_function=call)
    return copy.inputs, done


def _linear(dense):
    """A Dense layer with the same kernel and bias, without activation and in float32."""
    if len(dense.weights) != 1 + dense.use_bias:
        raise ValueError(f"the layer {dense.name} has more weights than a kernel and a bias")
    settings = {"activation": "linear", "dtype": "float32"}
    linear = type(dense).from_config(dense.get_config() | settings)
    linear._kernel, linear.bias, linear.built = dense.kernel, dense.bias, True
    return linear
