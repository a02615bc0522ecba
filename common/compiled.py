"""`tf.function` for functions of a model, compiled for each model and forgotten with it."""

import functools
import threading
import weakref

import tensorflow as tf

# Held while the Python code of a model runs, which may keep things in its layers: one thread at a
# time.  What is compiled runs without it.
tracing = threading.RLock()


def compiled(body, *, jit_compile=None):
    """Decorate `body(model, *arrays)`: compiled as by `tf.function`, once for each model.

    A `tf.function` that took the model as an argument would hold the weights of every model it
    has met until the process ends.  Here what was compiled goes when the model goes, and when
    its layers or their activations are exchanged.  Several threads may call it at once.

    Arrays are traced for any number of rows.  jit_compile: that of `tf.function`; XLA compiles
    for each number all the same.  Where it has no compiler for the device, the function runs
    without it.
    """
    functions = weakref.WeakKeyDictionary()

    @functools.wraps(body)
    def call(model, *arrays):
        nonlocal jit_compile
        if tf.inside_function():  # part of another trace: no lock of TensorFlow's inside ours
            return body(model, *arrays)
        now = structure(model)
        arrays = tf.nest.map_structure(tf.convert_to_tensor, arrays)
        flat = tf.nest.flatten(arrays)
        kind = tuple((array.dtype, array.shape.rank, *array.shape[1:]) for array in flat)
        layers, of_kind = functions.get(model, (None, {}))
        if layers != now or kind not in of_kind:
            with tracing:
                layers, of_kind = functions.get(model, (None, {}))
                if layers != now:
                    of_kind = {}
                    functions[model] = now, of_kind
                if kind not in of_kind:
                    of_kind[kind] = _function(body, model, arrays, jit_compile)
        try:
            return of_kind[kind](*arrays)
        except tf.errors.OpError:
            if not jit_compile:
                raise
        jit_compile = None
        functions.clear()
        return call(model, *arrays)

    return call


def _function(body, model, arrays, jit_compile):
    """`body` of a model, compiled for such arrays, of any number of rows.

    Each size of its own would be optimised in its own way, and the sums for a size would depend
    on which other sizes came before.
    """
    reference = weakref.ref(model)

    def of_model(*arrays):
        with tracing:
            return body(reference(), *arrays)

    def any_rows(array):
        return tf.TensorSpec([None, *array.shape[1:]] if array.shape.rank else [], array.dtype)

    signature = tf.nest.map_structure(any_rows, arrays)
    return tf.function(of_model, input_signature=signature, jit_compile=jit_compile)


@compiled
def forward(model, x):
    """The outputs of a model for one batch."""
    return model(x, training=False)


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
