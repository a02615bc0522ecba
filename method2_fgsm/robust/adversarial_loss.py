"""The losses of adversarial training, and a Keras model whose `fit` minimises one of them.

    sign_loss        on images and their sign steps      Goodfellow et al. 2015, section 6
    projected_loss   on projected sign steps alone       Madry et al. 2018, equation 2.1

Images are float32 (n, ...) in [0, 1], labels integers (n,), epsilon in pixel units.  The attack is
made with the weights as they are now, and without dropout, because what has to be withstood meets
the whole network.  It counts as a constant: no derivative goes through it.

Each returns (loss, logits): the mean over the batch, with the model in training mode, and
(n, classes) for the images whose accuracy the progress bar shows.
"""

import keras
import tensorflow as tf

from method2_fgsm.fgsm import sign_and_logits, sign_step

CELLS = 1, 2, 4, 7  # sides, in pixels


def sign_loss(model, x, y, eps, alpha):
    """The loss on images and on their adversarial twins, weighted alpha to 1 - alpha:

        alpha * J(x, y) + (1 - alpha) * J(clip(x + eps * sign(∇ₓ J(x, y))), y)

    J is the cross-entropy.  The paper does not clip.  The logits are those of the images x.
    """
    eps = tf.convert_to_tensor(eps, x.dtype)
    x_adv = tf.stop_gradient(sign_step(model, x, y, eps))
    # Both in one pass through the network: a third less time than in two.
    logits, logits_adv = tf.split(model(tf.concat([x, x_adv], axis=0), training=True), 2)
    return alpha * _mean_loss(y, logits) + (1 - alpha) * _mean_loss(y, logits_adv), logits


def projected_loss(model, x, y, eps, steps, step_size, start):
    """The loss on adversarial images alone, J(x_adv, y), after `steps` projected sign steps:

        x_adv ← clip(x_adv + step_size * sign(∇ₓ J(x_adv, y)))  to [x - eps, x + eps] and [0, 1]

    start: `uniform` or `cells`, the first change of x.  One step of 1.25 eps from `uniform` is the
    training of Wong et al. (2020), "Fast is better than free".  The logits are those of x_adv.
    """
    low, high = tf.maximum(x - eps, 0), tf.minimum(x + eps, 1)
    x_adv = tf.clip_by_value(x + start(x, eps), 0, 1)
    for _ in range(steps):
        sign, _ = sign_and_logits(model, x_adv, y)
        x_adv = tf.clip_by_value(x_adv + step_size * sign, low, high)
    x_adv = tf.stop_gradient(x_adv)
    logits = model(x_adv, training=True)
    return _mean_loss(y, logits), logits


def uniform(x, eps):
    """Random numbers from -eps to eps, like x."""
    return tf.random.uniform(tf.shape(x), -eps, eps, x.dtype)


def cells(x, eps):
    """For each image (h, w) of x one of five starts: `uniform`, or a corner of the box that is
    ± eps in square cells of 1, 2, 4 or 7 pixels, with random signs.

    A network that learns to ignore small changes has no gradient in many pixels, and a sign step
    leaves those as they are.  So some images start where an attack without a gradient would look.
    """
    n, height, width = tf.shape(x)[0], *x.shape[1:]
    kind = tf.random.uniform((n, 1, 1), maxval=len(CELLS) + 1, dtype=tf.int32)
    noise = uniform(x, eps)
    for number, side in enumerate(CELLS):
        up = tf.random.uniform((n, -(-height // side), -(-width // side))) < 0.5
        up = tf.repeat(tf.repeat(up, side, axis=1), side, axis=2)[:, :height, :width]
        noise = tf.where(kind == number, eps * (2 * tf.cast(up, x.dtype) - 1), noise)
    return noise


def _mean_loss(y, logits):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))


class AdversarialModel(keras.Model):
    """A model of the same layers as `model`, fitted with `loss(model, x, y) -> (loss, logits)`."""

    def __init__(self, model, loss):
        super().__init__(model.inputs, model.outputs)
        self.adversarial_loss = loss

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss, logits = self.adversarial_loss(self, x, y)
        weights = self.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, logits)
        return {metric.name: metric.result() for metric in self.metrics}
