"""The CNN's first convolution, with a faster gradient by the pixels.

The gradient by an image of one channel is a convolution with one output channel.  A processor
works on eight or sixteen channels at a time and then has little to do: that one gradient took
a quarter of the time of a sign step.  Here a whole row of pixels is the output at once, as one
matrix product.
"""

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable("first_convolution")
class Conv2D(keras.layers.Conv2D):
    """Keras's layer (its weights are saved under the same name), for images of one channel, an
    odd kernel, one step and padding "same"."""

    def call(self, x):
        return _with_pixels(super().call(tf.stop_gradient(x)), x, tf.convert_to_tensor(self.kernel))


@tf.custom_gradient
def _with_pixels(y, x, kernel):
    """y, the layer's output without a gradient by x (n, h, w, 1), with that gradient."""

    def gradient(upstream):
        return upstream, gradient_by_pixels(upstream, kernel), tf.zeros_like(kernel)

    return tf.identity(y), gradient


def gradient_by_pixels(upstream, kernel):
    """The gradient by x (n, h, w, 1) from the one by the result, (n, h, w, f)."""
    (height, width, filters), size = upstream.shape[1:], kernel.shape[0]
    columns = np.arange(width)
    # Whether column a of the result looks at column c of x through column j of the kernel.
    through = columns - columns[:, np.newaxis] + size // 2
    looks = tf.cast(through[..., np.newaxis] == np.arange(size), kernel.dtype)
    matrix = tf.einsum("acj,ijf->afic", looks, kernel[:, :, 0])
    rows = tf.reshape(upstream, (-1, width * filters))
    matrix = tf.reshape(matrix, (width * filters, size * width))
    # What each row of the result gives to the row of x that it sees through row i of the kernel.
    given = tf.reshape(tf.matmul(rows, matrix), (-1, height, size, width))
    given = tf.pad(given, ((0, 0), (size // 2, size // 2), (0, 0), (0, 0)))
    parts = [given[:, size - 1 - i : size - 1 - i + height, i] for i in range(size)]
    return tf.add_n(parts)[..., np.newaxis]
