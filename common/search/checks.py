"""What every attack asks of a model, of images, of labels and of numbers, said once.

A model is any Keras model with one image in [0, 1] as its input and one row of at least two
logits for each image as its output.  What can be read from the model's declared shapes is read
there; for the rest the model is tried on a few images, once, and again when it has changed.
"""

import numpy as np

from common.command import Failure


class Refused(Failure, ValueError):
    """What a script says in one line, and a function as any other `ValueError`."""


def checked(model, x, y, *, name="labels"):
    """Images and labels as the attacks work on them, once they fit each other and the model.

    x: (n, ...) in [0, 1].  y: integers (n,), classes of the model.  name: what messages call y.
    Returns (x, y): float32 and int64 arrays.  Raises ValueError for anything else, and for a
    model that is not as described above.
    """
    try:
        x, y = np.asarray(x, np.float32), np.asarray(y)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"images are {type(x).__name__}, not an array of pixels: read files and data sets first"
        ) from error
    check_shape(model, x)
    problem, layer = outside(x)
    if layer:
        problem += f"; where the model expects those, put keras.layers.{layer} in front of it"
    if problem:
        raise ValueError(problem)
    if y.shape != x.shape[:1] or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{name} are {y.dtype} {y.shape}, not integers {x.shape[:1]}")
    classes = count_classes(model, x)
    if len(y) and not 0 <= y.min() <= y.max() < classes:
        raise ValueError(f"{name} must be from 0 to {classes - 1}")
    return x, y.astype(np.int64)


def outside(x):
    """What is wrong with images x (n, ...) outside [0, 1], and which layer of Keras makes such
    pixels of those within: two strings, empty where there is nothing to say."""
    low, high = (x.min(), x.max()) if x.size else (0, 1)
    if low >= 0 and high <= 1:
        return "", ""
    if not np.isfinite(low + high):
        return "images hold values that are no finite numbers: leave those images out", ""
    problem = f"images have pixels from {low:g} to {high:g}, outside [0, 1]: "
    if low >= -1 and high <= 1:
        return problem + "give (x + 1) / 2", "Rescaling(2, offset=-1)"
    if low >= 0 and high <= 255:
        return problem + "divide them by 255", "Rescaling(255)"
    return problem + "give them as they were before they were scaled", ""


def check_shape(model, x):
    """Raise ValueError unless `model` is a built Keras model with one input, which x fits."""
    import keras

    if not isinstance(model, keras.Model):
        raise ValueError(f"{model!r} is not a Keras model")
    if not model.built:
        raise ValueError(
            f"the model {model.name} does not know its input yet: call it on one image first"
        )
    inputs = getattr(model, "inputs", None)  # a subclassed model declares none
    if inputs is None:
        return
    if len(inputs) != 1:
        raise ValueError(f"the model {model.name} has {len(inputs)} inputs, not one for the images")
    takes = tuple(inputs[0].shape[1:])
    if len(x.shape) != 1 + len(takes) or any(
        size not in (None, given) for size, given in zip(takes, x.shape[1:], strict=True)
    ):
        raise ValueError(
            f"images are {x.shape[1:]}, but the model takes {takes}: one image goes in as "
            "x[np.newaxis], images without channels as x[..., np.newaxis]"
        )


def count_classes(model, x):
    """How many classes the model tells apart, once it has been tried on two of the images x.

    Raises ValueError unless it gives a row of at least two logits for each image, in float32 or
    float64, which are not probabilities and can be differentiated by the pixels.
    """
    from common.search.compiled import known

    found, shape = known(model), x.shape[1:]
    if shape not in found:
        noise = np.random.default_rng(0).random((2, *shape), np.float32)
        found[shape] = _try(model, np.concatenate([x[:2], noise]))
    return found[shape]


def _try(model, x):
    """`count_classes` of a model that was not tried yet, on the images x."""
    import tensorflow as tf

    from common.search.compiled import compiled, forward, tracing
    from common.search.logits import ROUNDING_SINGLE, logits_of, rounding

    name, given = f"the model {model.name}", tf.errors.InvalidArgumentError
    try:
        # Compiled as in an attack: eagerly TensorFlow computes the gradients by the weights too,
        # which ends the process for some convolutions.
        logits, gradient = compiled(_logits_and_gradient)(model, x)
    except (AttributeError, NotImplementedError, TypeError, ValueError, given) as error:
        # Of an error in Python code AutoGraph tells where it arose, and keeps what it said itself.
        problem = error.__context__ or error
        raise ValueError(f"{name} does not take images {x.shape[1:]}: {problem}") from error
    if not isinstance(logits, tf.Tensor) or logits.shape.rank != 2 or len(logits) != len(x):
        shapes = tf.nest.map_structure(lambda output: tuple(output.shape[1:]), logits)
        raise ValueError(
            f"{name} gives {shapes} for an image, not one row of logits: make a model of the one "
            "output to attack, keras.Model(model.inputs, model.outputs[0])"
        )
    if logits.shape[1] < 2:
        raise ValueError(
            f"{name} has one output, and an attack needs at least two logits: for a binary "
            "classifier give 0 and z, where z is its one logit before the sigmoid"
        )
    if logits.dtype not in (tf.float32, tf.float64):
        raise ValueError(
            f"{name} gives logits in {logits.dtype.name} (dtype policy {model.dtype_policy.name}), "
            "too coarse to attack: logits_of(model) (common/search/logits.py) gives them in float32"
        )
    z = logits.numpy().astype(np.float64)
    numbers = np.nan_to_num(z)
    changes = (np.ptp(numbers, axis=0) > 1e-4 * np.abs(numbers).max()).any()
    if gradient is None or (changes and not gradient.numpy().any()):
        raise ValueError(
            f"{name} cannot be differentiated by the pixels of its image, which every attack needs "
            "(if it takes whole numbers, build it on keras.Input(shape) without a dtype)"
        )
    tolerance = 3e-4 if rounding(model) <= ROUNDING_SINGLE else 0.1
    if (np.abs(forward(model, x) - z) > tolerance * np.abs(z).max()).any():
        raise ValueError(
            f"{name} answers differently each time it is asked: leave out dropout and noise that "
            "stay on (training=True) outside training"
        )
    # Probabilities they are if they stay in [0, 1] for images a thousand times as bright, too.
    rows = np.concatenate([z, forward(model, 1000 * x)])
    if not ((rows < 0) | (rows > 1)).any():
        remedy = "attack logits_of(model) (common/search/logits.py), which ends before them"
        try:
            with tracing:
                if logits_of(model) is model:
                    return z.shape[1]
        except ValueError as error:
            remedy = error
        raise ValueError(f"{name} gives probabilities, and an attack needs logits: {remedy}")
    return z.shape[1]


def _logits_and_gradient(model, x):
    """What the model gives for images x, and its gradient by them, None where there is none."""
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = model(x, training=False)
    if not isinstance(logits, tf.Tensor) or not logits.dtype.is_floating:
        return logits, None
    # Weights that differ, because what is the same for every class may cancel out.
    weights = tf.cos(tf.range(tf.size(logits), dtype=tf.float32))
    weights = tf.cast(tf.reshape(weights, tf.shape(logits)), logits.dtype)
    try:
        return logits, tape.gradient(logits, x, output_gradients=weights)
    except LookupError:  # an operation without a gradient
        return logits, None


def positive(name, value, *, whole=False):
    """Raise ValueError unless `value` is above 0, finite in float32 and, if `whole`, whole."""
    if not 0 < number(name, value) <= float(np.finfo(np.float32).max):
        raise ValueError(f"{name} must be a finite number above 0, not {value!r}")
    if whole and not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be a whole number, not {value!r}")


def probability(name, value):
    """Raise ValueError unless `value` is None, or a number above 0 and below 1."""
    if value is not None and not 0 < number(name, value) < 1:
        raise ValueError(f"{name} must be above 0 and below 1, not {value!r}")


def pixel_size(name, value, images=None):
    """A number in [0, 1], as epsilon is, in float64.  Raises ValueError for anything else.

    images (n, ...): it may also be one for each of them, (n,), and comes back as (n, 1, ...).
    """
    sizes = number(name, value, () if images is None else images.shape[:1])
    if not ((sizes >= 0) & (sizes <= 1)).all():
        raise ValueError(
            f"{name} must be in [0, 1] pixel units (8/255 = 0.0314), not {value!r:.60}"
        )
    if images is None:
        return sizes
    return np.broadcast_to(sizes, len(images)).reshape(-1, *[1] * (images.ndim - 1))


def number(name, value, shape=()):
    """`value` as float64 of shape () or `shape`; ValueError for anything but numbers."""
    try:
        numbers = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        numbers = np.array(None)
    if numbers.dtype.kind not in "iuf" or numbers.shape not in ((), shape):
        each = f" or {shape[0]} of them, one an image" if shape else ""
        raise ValueError(f"{name} must be a number{each}, not {value!r:.60}")
    return numbers.astype(np.float64)


def finite(values, what):
    """Raise ValueError where `values` (n, ...), called `what`, hold NaN or infinities."""
    # The product says at once that all is well; it may overflow, though.
    if not np.isfinite(np.vdot(values, values)):
        broken = (~np.isfinite(values)).reshape(len(values), -1).any(axis=1).sum()
        if broken:
            raise Refused(
                f"{what} are not finite numbers for {broken} of {len(values)} images: check the "
                "model for a root, a logarithm or a quotient at 0"
            )
