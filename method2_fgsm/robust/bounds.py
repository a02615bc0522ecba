"""Interval bounds: what no image within epsilon can change (Gowal et al. 2019, "Scalable Verified
Training for Provably Robust Image Classification", section 3).

A box, all the values within a radius r of a centre c, goes through the network layer by layer:

    c ← W c + b,   r ← |W| r                                 what is affine
    [c - r, c + r] ← [f(c - r), f(c + r)]                    what is monotone

    z_j - z_y ≤ (w_j - w_y)·c + b_j - b_y + |w_j - w_y|·r    the last layer, for two logits at once

Where the last line is below zero for every class j but y, every image of the box is a y, whoever
looks for another, and however.  Where it is not, that says nothing: the bounds may be loose.

They hold for the network as it runs, in float32, not only for the one that its weights describe.
They are computed in float64, and each layer makes its box wider by what float32 rounds there.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import activations, layers

from common.networks import first_convolution
from common.search import checks
from common.search.compiled import compiled

CONVOLUTIONS = layers.Conv2D, first_convolution.Conv2D
AFFINE = layers.Dense, *CONVOLUTIONS, layers.BatchNormalization, layers.Rescaling
RECTIFIERS = layers.Activation, layers.ReLU, layers.LeakyReLU
MAXIMA = layers.MaxPooling2D, layers.GlobalMaxPooling2D
MEANS = layers.AveragePooling2D, layers.GlobalAveragePooling2D
MONOTONE = *RECTIFIERS, *MAXIMA, *MEANS, layers.Flatten, layers.Reshape, layers.Dropout, layers.Add
SATURATING = activations.sigmoid, activations.tanh
FUNCTIONS = *SATURATING, activations.linear, activations.relu, activations.leaky_relu

U = 2.0**-24  # half of the distance from 1 to the next number of float32
FEW = 16  # roundings of a layer beside those of its sums; batch normalisation has about ten
TINY = 1e-30  # times γ, more than is lost where float32 takes a product to be zero
ROUNDS = 14  # of the bisection


def margin_bounds(model, x, y, eps, *, batch_size=250, dtype="float64"):
    """Upper bounds of z_j - z_y over all images in [0, 1] within eps of x: float64 (n, classes).

    x: float32 (n, ...) in [0, 1].  y: integers (n,).  eps: from 0 to 1, in pixel units, or one for
    each image (n,).  The column of y itself holds zeros.  The bounds are those of the prediction:
    without dropout, and with the moving statistics of batch normalisation.
    dtype: what they are computed in; "float32" is several times as fast and proves nothing.
    Raises ValueError for a layer or activation that is not named above, for a dtype other than
    float32 and float64, and as `common/search/checks.py` says.
    """
    checks.positive("batch_size", batch_size, whole=True)
    x, y = checks.checked(model, x, y)
    checks.pixel_size("eps", eps, x)
    check(model)
    low, high = box(x, np.broadcast_to(eps, len(x)))
    bounds = np.zeros((len(x), checks.count_classes(model, x)))
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        ends = (end[rows].astype(dtype) for end in (low, high))
        bounds[rows] = upper(model, *ends, y[rows]).numpy()
    return bounds


def proven(model, x, y, eps, **settings):
    """Which images are classified as y, and every image in [0, 1] within eps of them: bool (n,).

    settings: of `margin_bounds`.
    """
    bounds = margin_bounds(model, x, y, eps, **settings)
    bounds[np.arange(len(bounds)), y] = -np.inf
    return (bounds < 0).all(axis=1)  # false for NaN


def largest_proven_eps(model, x, y, *, batch_size=250):
    """The largest eps for which each image is `proven`, less at most 2^-14: float64 (n,).

    Each was tried, so it is proven whatever the bounds do in between.  NaN where eps 0 is not.
    Found in float32, it is tried in float64; where that contradicts, all of the search is.
    """
    settings = {"batch_size": batch_size}
    largest = bisected(model, x, y, **settings, dtype="float32")
    there, tried = np.isfinite(largest), np.nan_to_num(largest)
    wrong = proven(model, x, y, tried, **settings) != there
    wrong |= proven(model, x, y, tried + 2.0**-ROUNDS, **settings)
    largest[wrong] = bisected(model, x[wrong], y[wrong], **settings)
    return largest


def bisected(model, x, y, **settings):
    """The same, all of it in one dtype.  settings: of `margin_bounds`."""
    low = np.where(proven(model, x, y, 0, **settings), 0.0, np.nan)
    rows = np.flatnonzero(low == 0)
    x, y, high = x[rows], y[rows], np.ones(len(rows))
    for _ in range(ROUNDS):
        middle = (low[rows] + high) / 2
        stands = proven(model, x, y, middle, **settings)
        low[rows], high = np.where(stands, middle, low[rows]), np.where(stands, high, middle)
    return low


def box(x, eps):
    """The least and the largest value of each pixel within eps, rounded outwards: two like x.

    It holds what float32 makes of x ± eps, too, where eps itself may be rounded upwards.
    """
    eps = np.maximum(eps, np.float32(eps)).reshape(-1, *[1] * (x.ndim - 1))
    low = np.nextafter(np.float32(x - eps), np.float32(-1))
    high = np.nextafter(np.float32(x + eps), np.float32(2))
    return np.clip(low, 0, 1), np.clip(high, 0, 1)


@compiled
def scores(model, low, high):
    """The least and the largest of each logit for one batch of boxes: two (n, classes)."""
    c, r = through(*last(model, tf.cast(low, tf.float64), tf.cast(high, tf.float64)))
    return c - r, c + r


@compiled
def upper(model, low, high, y):
    """`margin_bounds` of one batch of boxes."""
    layer, boxes = last(model, low, high)
    if type(layer) is layers.Dense and layer.activation is activations.linear:
        bounds = last_layer(layer, *boxes, y)
    else:
        c, r = through(layer, boxes)
        bounds = c + r - tf.gather(c - r, y, batch_dims=1)[:, tf.newaxis]
    return tf.where(tf.one_hot(y, bounds.shape[1], True, False), tf.zeros_like(bounds), bounds)


def last(model, low, high):
    """The last layer of a model, and the boxes in front of it for a batch of boxes of images."""
    images = {id(model.inputs[0]): ((low + high) / 2, (high - low) / 2)}
    return before(model.outputs[0], images)


def before(tensor, known):
    """The layer that a tensor of a Keras graph comes from, and the boxes of what it is fed.

    known: the boxes (c, r) of tensors by their id; found ones are added.
    """
    layer, node, index = tensor._keras_history
    boxes = []
    for fed in layer._inbound_nodes[node].input_tensors:
        if id(fed) not in known:
            known[id(fed)] = through(*before(fed, known))
        boxes.append(known[id(fed)])
    if isinstance(layer, keras.Model):
        return before(layer.outputs[index], dict(zip(map(id, layer.inputs), boxes, strict=True)))
    return layer, boxes


def through(layer, boxes):
    """The box (c, r) behind a layer, from those before it: it holds what float32 computes there.

    Summed in any order, n products differ from their exact sum by at most γ Σ |w_i h_i|, where
    γ = n U / (1 - n U) (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section
    3.1); a few roundings more, of the bias say, make n larger by as many.  The h of the network
    itself are at most |c| + r, and so a box that is wider by γ (|c| + r) holds, behind the exact
    layer, what the rounding one computes.  Of sigmoid and tanh only the absolute error is small.
    What float64 rounds here is five hundred million times less than one of the few.
    (Not so for arithmetic with less precision than its numbers, as TF32 on a GPU.)
    """
    gamma = rounding(layer, boxes)
    c = [c for c, _ in boxes]
    r = [r + gamma * (tf.abs(c) + r) for c, r in boxes]
    activation = getattr(layer, "activation", activations.linear)
    if type(layer) in AFFINE:
        linear, weights, constants = affine(layer, c[0])
        c = linear(c[0], weights) + sum(constants)
        r = linear(r[0], tf.abs(weights)) + gamma * (sum(map(tf.abs, constants)) + TINY)
        low, high = activation(c - r), activation(c + r)
    else:
        ends = list(map(tf.subtract, c, r)), list(map(tf.add, c, r))
        low, high = (layer.call(end if type(layer) is layers.Add else end[0]) for end in ends)
    c, r = (low + high) / 2, (high - low) / 2
    return c, r + FEW * U * (tf.abs(c) + r + (activation in SATURATING))


def last_layer(layer, box, y):
    """`margins` from the box in front of a last Dense layer.

    To the bound of the exact z_j - z_y comes τ_j + τ_y, where τ_k = γ (|w_k|·(|c| + r) + |b_k|) is
    how far the z_k of float32 can be from the exact one, as `through` says.
    """
    c, r = box
    linear, w, constants = affine(layer, c)
    z = linear(c, w) + sum(constants)
    tau = linear(tf.abs(c) + r, tf.abs(w)) + sum(map(tf.abs, constants)) + TINY
    tau *= rounding(layer, [box])
    difference = w - tf.gather(tf.transpose(w), y)[:, :, tf.newaxis]  # w_j - w_y: (n, d, classes)
    bounds = z + tau + tf.einsum("nd,ndj->nj", r, tf.abs(difference))
    return bounds + tf.gather(tau - z, y, batch_dims=1)[:, tf.newaxis]


def affine(layer, c):
    """An affine layer for boxes of centre c: (linear, weights, constants), where linear(h, weights)
    is W h and the constants sum to b."""
    if type(layer) is layers.Rescaling:
        return tf.multiply, tf.cast(layer.scale, c.dtype), [tf.cast(layer.offset, c.dtype)]
    first = getattr(layer, "data_format", "") == "channels_first"
    shape = [1] * len(c.shape)
    shape[getattr(layer, "axis", 1 if first else -1)] = -1

    def per_channel(*variables):
        given = (keras.ops.cast(v, c.dtype) for v in variables if v is not None)
        return [tf.reshape(variable, shape) for variable in given]

    if type(layer) is layers.BatchNormalization:
        mean, variance, *gamma = per_channel(layer.moving_mean, layer.moving_variance, layer.gamma)
        scale = tf.math.rsqrt(variance + layer.epsilon) * (gamma or [1])[0]
        return tf.multiply, scale, [-mean * scale, *per_channel(layer.beta)]
    linear = tf.matmul if type(layer) is layers.Dense else layer.convolution_op
    return linear, keras.ops.cast(layer.kernel, c.dtype), per_channel(layer.bias)


def rounding(layer, boxes):
    """The γ of a layer: see `through`."""
    c, _ = boxes[0]
    if hasattr(layer, "kernel"):
        n = np.prod(layer.kernel.shape[:-1], dtype=float)
    elif type(layer) is layers.AveragePooling2D:
        n = np.prod(layer.pool_size, dtype=float)
    elif type(layer) is layers.GlobalAveragePooling2D:
        n = tf.cast(tf.size(c) / tf.size(layer.call(c)), c.dtype)
    else:
        n = len(boxes)
    return (n + FEW) * U / (1 - (n + FEW) * U)


def check(model):
    """Raise ValueError where the bounds of a layer are not known here."""
    if not type(model).call.__module__.startswith("keras."):
        raise ValueError(f"interval bounds need a model that shows its layers, not {model.name}")
    for layer in getattr(model, "_functional", model).operations:  # with those of its input
        name = f"the layer {layer.name} ({type(layer).__name__})"
        if isinstance(layer, keras.Model):
            check(layer)
        elif type(layer) not in (*AFFINE, *MONOTONE, layers.InputLayer):
            known = ", ".join(dict.fromkeys(kind.__name__ for kind in AFFINE + MONOTONE))
            raise ValueError(f"no interval bounds are known here for {name}, only for {known}")
        elif getattr(layer, "activation", activations.linear) not in FUNCTIONS:
            known = ", ".join(function.__name__ for function in FUNCTIONS)
            raise ValueError(f"the activation of {name} is none of {known}: no bounds are known")
        # An input casts to its own dtype, whatever its policy.
        elif coarse := {layer.dtype, layer.dtype_policy.name} - {"float32", "float64"}:
            raise ValueError(f"{name} works in {coarse.pop()}, not in float32")
