"""`tf.function` for functions of a model, compiled for each model and forgotten with it.

What was traced is right as long as all that the trace may have captured is what it was.  So what a
model holds is kept beside what was compiled for it, in the model itself, and compared at each call.
"""

import functools
import itertools
import operator
import sys
import threading
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

# An array of at most so many bytes is compared by what is in it.
ARRAY_BYTES = 100_000
# Records that Keras keeps for every layer, and no call reads.
RECORDS = {
    "_build_shapes_dict", "_inbound_nodes", "_loss_ids", "_losses", "_losses_override", "_metrics",
    "_non_trainable_variables", "_outbound_nodes", "_seed_generators", "_tracked",
    "_trainable_variables", "call_signature_parameters",
}  # fmt: skip
LIBRARIES = {"keras", "tensorflow", *sys.stdlib_module_names}
END = object()
# Held by the one thread that runs the Python code of a model; what is compiled runs without it.
tracing = threading.RLock()


def compiled(body):
    """Decorate `body(model, *arrays)`: compiled as by `tf.function`, once for each model.

    A `tf.function` that took the model as an argument would hold the weights of every model it
    has met until the process ends.  Here what was compiled goes when the model goes, and when
    anything that it holds is exchanged.  Several threads may call it at once.

    Arrays are traced for any number of rows.
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
    """`body` of a model, compiled for such arrays, of any number of rows.

    Each size of its own would be optimised in its own way, and the sums for a size would depend
    on which other sizes came before.
    """

    def of_model(*arrays):
        with tracing:
            outputs = body(model, *arrays)
            remember(model)
        return outputs

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
                memory.state = found, held = {}, _held_by(memory.model)
    return found


@tf.autograph.experimental.do_not_convert
def remember(model):
    """What a model's own code has just left in its layers, such as a tensor, is no change."""
    memory = memory_of(model)
    memory.state = memory.state[0], _held_by(memory.model)


def memory_of(model):
    """What is known of a model, and what the model held when it became known."""
    nothing = {}, ([(None,)], (END,), [])
    new = SimpleNamespace(model=model, state=nothing)
    return vars(model).get("_memory") or vars(model).setdefault("_memory", new)


def _held_by(model):
    """The containers in a model, all that is in them, and its arrays with the bytes in them.

    The first show what is in them at any time.  The second is kept alive here, so that nothing
    else can take its place in memory.
    """
    containers, arrays, seen, waiting = [], [], set(), [model]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray) and thing.nbytes <= ARRAY_BYTES:
            arrays.append((thing, thing.tobytes()))
        elif isinstance(thing, dict):
            containers += thing, thing.values()
            waiting += *thing, *thing.values()
        elif isinstance(thing, list | set | tuple | frozenset):
            containers.append(thing)
            waiting += thing
        elif _is_open(thing):
            containers.append(vars(thing).values())
            waiting += (
                value
                for name, value in vars(thing).items()
                if name not in RECORDS and not name.startswith("_self_")  # TensorFlow's records
            )
    containers.append((END,))
    return containers, tuple(itertools.chain.from_iterable(containers)), arrays


def _is_open(thing):
    """Whether a thing counts with all that it holds: layers and the like, and one's own objects."""
    return isinstance(thing, keras.Operation | keras.Variable | tf.Module) or (
        isinstance(getattr(thing, "__dict__", None), dict)
        and type(thing).__module__.partition(".")[0] not in LIBRARIES
    )


def _unchanged(containers, items, arrays):
    try:
        return all(map(operator.is_, itertools.chain.from_iterable(containers), items)) and all(
            array.tobytes() == content for array, content in arrays
        )
    except RuntimeError:  # another thread is writing into one of them
        return False
