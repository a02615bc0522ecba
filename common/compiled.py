"""`tf.function` for functions of a model, compiled for each model and forgotten with it."""

import functools
import weakref

import tensorflow as tf


def compiled(body, *, jit_compile=None):
    """Decorate `body(model, *arrays)`: compiled as by `tf.function`, once for each model.

    A `tf.function` that took the model as an argument would hold the weights of every model it
    has met until the process ends.  Here what was compiled goes when the model goes, and when
    its layers or their activations are exchanged.  jit_compile: that of `tf.function`; XLA
    compiles for each shape, all else goes on with one trace for several.  Where XLA has no
    compiler for the device, the function runs without it.
    """
    functions = weakref.WeakKeyDictionary()

    @functools.wraps(body)
    def call(model, *arrays):
        nonlocal jit_compile
        layers, function = functions.get(model, (None, None))
        now = structure(model)
        if layers != now:
            reference = weakref.ref(model)

            def of_model(*arrays):
                return body(reference(), *arrays)

            function = tf.function(
                of_model, jit_compile=jit_compile, reduce_retracing=not jit_compile
            )
            functions[model] = now, function
        try:
            return function(*arrays)
        except tf.errors.OpError:
            if not jit_compile:
                raise
        jit_compile = None
        functions.clear()
        return call(model, *arrays)

    return call


def structure(model):
    """What a trace of a model depends on beside its weights: its layers and their activations.

    Two structures are equal while none of them is exchanged.  A structure keeps no layer alive.
    """
    found = []
    for layer in model.layers:
        found.append((weakref.ref(layer), getattr(layer, "activation", None)))
        if hasattr(layer, "layers"):
            found += structure(layer)
    return found
