"""The loss of adversarial training (Goodfellow, Shlens & Szegedy 2015, section 6), and a Keras
model whose `fit` minimises it.

Images are float32 (n, ...) in [0, 1], labels integers (n,), epsilon in the same [0, 1] pixel
units.
"""

import keras
import tensorflow as tf

from method2_fgsm.fgsm import sign_step


def adversarial_loss(model, x, y, eps, alpha):
    """The loss on images and on their adversarial twins, weighted alpha to 1 - alpha:

        alpha * J(x, y) + (1 - alpha) * J(clip(x + eps * sign(∇ₓ J(x, y))), y)

    J is the mean cross-entropy of the batch, with the model in training mode.  The sign is taken
    with the weights as they are now, and without dropout, because the attack to withstand meets
    the whole network.  It counts as a constant: its derivative is zero wherever it has one.  The
    paper does not clip; here an adversarial image is a valid image, in training as in attack.

    Returns (loss, logits): a scalar, and (n, classes) for the images x.
    """
    x_adv = tf.stop_gradient(sign_step(model, x, y, eps))
    # Both in one pass through the network: a third less time than in two.
    logits, logits_adv = tf.split(model(tf.concat([x, x_adv], axis=0), training=True), 2)
    return alpha * _mean_loss(y, logits) + (1 - alpha) * _mean_loss(y, logits_adv), logits


def _mean_loss(y, logits):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))


class AdversarialModel(keras.Model):
    """A model of the same layers as `model`, fitted with `adversarial_loss`."""

    def __init__(self, model, eps, alpha):
        super().__init__(model.inputs, model.outputs)
        self.eps, self.alpha = eps, alpha

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss, logits = adversarial_loss(self, x, y, self.eps, self.alpha)
        weights = self.trainable_weights
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, logits)
        return {metric.name: metric.result() for metric in self.metrics}
