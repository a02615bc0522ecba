"""`tf.function` for functions of a model, compiled for each model and forgotten with it.

What was traced is right as long as the layers of the model, and what their attributes are, are what
they were.  So these are kept beside what was compiled, in the model itself, and compared at each
call.  Weights count as the variables that they are: what is in them is read, and not traced.
"""

import functools
import operator
import threading
from types import SimpleNamespace

import keras
import tensorflow as tf

# Held by the one thread that runs the Python code of a model; what is compiled runs without it.
tracing = threading.RLock()


def compiled(body):
    """Decorate `body(model, *arrays)`: compiled as by `tf.function`, once for each model.

    A `tf.function` that took the model as an argument would hold the weights of every model it
    has met until the process ends.  Here what was compiled goes when the model goes, and when
    a layer or an attribute of one is exchanged.  Arrays are traced for any number of rows.
    Several threads may call it at once.
    """

    @functools.wraps(body)
    def call(model, *arrays):
        if tf.inside_function():  # part of another trace: no lock of TensorFlow's inside ours
            return body(model, *arrays)
        arrays = tf.nest.map_structure(tf.convert_to_tensor, arrays)
        kinds = (
            (array.dtype, array.shape.rank, *array.shape[1:]) for array in tf.nest.flatten(arrays)
        )
        found, key = known(model), (body, id(model), *kinds)
        function = found.get(key)
        if function is None:
            function = found.setdefault(key, _function(body, model, arrays))
        return function(*arrays)

    return call


def _function(body, model, arrays):
    """`body` of a model, compiled for such arrays, of any number of rows: each number would be
    optimised in its own way, and the sums depend on which others came before."""

    def of_model(*arrays):
        with tracing:
            return body(model, *arrays)

    def any_rows(array):
        return tf.TensorSpec([None, *array.shape[1:]] if array.shape.rank else [], array.dtype)

    signature = tf.nest.map_structure(any_rows, arrays)
    return tf.function(of_model, input_signature=signature)


@compiled
def forward(model, x):
    """The outputs of a model for one batch."""
    return model(x, training=False)


def known(model):
    """A dict for what is found out about a model, empty again as soon as the model has changed."""
    memory = memory_of(model)
    found, held = memory.state
    if not _unchanged(*held):
        with tracing:
            found, held = memory.state
            if not _unchanged(*held):
                memory.state = found, _ = {}, _held_by(memory.model)
    return found


def memory_of(model):
    """What is known of a model, and what the model held when it became known."""
    new = SimpleNamespace(model=model, state=({}, ((), None, (), (), ())))
    return vars(model).get("_memory") or vars(model).setdefault("_memory", new)


def _held_by(model):
    """The attributes of a model and of all layers in it: dicts, and of each one its length; and for
    each attribute the dict, the name and the value, which is kept alive, and so keeps its identity.

    Not what is in a list or a dict, nor what a call leaves behind: that it was, and tensors of a
    trace.
    """
    parts, waiting = {}, [model]
    while waiting:
        part = waiting.pop()
        if id(part) in parts:
            continue
        parts[id(part)] = vars(part)
        for value in [*vars(part).values()]:
            inner = value if isinstance(value, list | tuple) else [value]
            waiting += (thing for thing in inner if isinstance(thing, keras.Operation))
    held = [
        (attributes, name, value)
        for attributes in parts.values()
        for name, value in [*attributes.items()]
        if name != "_called"
        and not (isinstance(value, list | dict | set) or tf.is_symbolic_tensor(value))
    ]
    return [*parts.values()], [*map(len, parts.values())], *zip(*held, strict=True)


def _unchanged(parts, lengths, attributes, names, values):
    return [*map(len, parts)] == lengths and all(
        map(operator.is_, map(dict.get, attributes, names), values)
    )
