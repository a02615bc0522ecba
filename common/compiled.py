"""`tf.function` for functions of a model, compiled for each model and forgotten with it."""

import functools
import weakref

import tensorflow as tf


def compiled(body, *, jit_compile=None):
    """Decorate `body(model, *arrays)`: compiled as by `tf.function`, once for each model.

    A `tf.function` that took the model as an argument would hold the weights of every model it
    has met until the process ends.  Here what was compiled goes when the model goes.  jit_compile:
    that of `tf.function`; XLA compiles for each shape, all else goes on with one trace for several.
    """
    functions = weakref.WeakKeyDictionary()

    @functools.wraps(body)
    def call(model, *arrays):
        function = functions.get(model)
        if function is None:
            reference = weakref.ref(model)

            def of_model(*arrays):
                return body(reference(), *arrays)

            function = functions[model] = tf.function(
                of_model, jit_compile=jit_compile, reduce_retracing=not jit_compile
            )
        return function(*arrays)

    return call
