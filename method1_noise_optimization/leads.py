"""How far the target is ahead of the other classes: what all three methods go by."""

import tensorflow as tf

# A target counts as reached when its logit leads by this much: less is rounding, which another
# batch size could undo.
LEAD = 1e-4


def leads(logits, y_target):
    """z_t - z_k for every class k, (n, classes); for k = t itself the dtype's largest number."""
    chosen = tf.one_hot(y_target, logits.shape[-1], on_value=True, off_value=False)
    target = tf.reduce_sum(tf.where(chosen, logits, 0), axis=1, keepdims=True)
    return tf.where(chosen, logits.dtype.max, target - logits)


def lead(logits, y_target):
    """The lead over the strongest competitor, (n,): positive exactly where t is predicted."""
    return tf.reduce_min(leads(logits, y_target), axis=1)


def logits(model, flat):
    """Logits (n, classes) of flattened images (n, d)."""
    return model(tf.reshape(flat, [-1, *model.input_shape[1:]]), training=False)
