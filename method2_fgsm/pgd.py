"""Projected gradient descent: the fast gradient sign, many times over (Kurakin, Goodfellow &
Bengio 2017, "Adversarial examples in the physical world"; with the random start of Madry et al.
2018, "Towards Deep Learning Models Resistant to Adversarial Attacks").

A network can be trained until one sign step no longer hurts it, without being any harder to fool:
its gradient simply points elsewhere.  Many small steps show the difference.
"""

import numpy as np
import tensorflow as tf

from common import contract
from common.compiled import compiled
from method2_fgsm import fgsm


@compiled
def _step(model, x, x_adv, y, eps, step_size):
    """One step, projected on the eps box round x and on [0, 1]; and who was fooled before it."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x_adv)
        logits = model(x_adv, training=False)
    sign = tf.sign(tape.gradient(logits, x_adv, output_gradients=fgsm.ascent(logits, y)))
    moved = tf.clip_by_value(x_adv + step_size * sign, x - eps, x + eps)
    return tf.clip_by_value(moved, 0, 1), tf.argmax(logits, axis=1) != y


def pgd(model, x, y, eps, *, steps=40, step_size=None, seed=0, batch_size=1000):
    """Up to `steps` sign steps away from the labels y, never further than eps from x:

        x_adv ← clip(x_adv + step_size * sign(∇ₓ J(x_adv, y)))  to [x - eps, x + eps] and [0, 1]

    It starts at a random point of that box.  An image that is misclassified stays as it is.

    x: float32 (n, ...) in [0, 1].  y: integers (n,).  eps: at least 0, in pixel units, like
    step_size, which is 2.5 * eps / steps if not given, so that the whole box is within reach.
    seed: of the start; it makes the images independent of the batch size.
    Returns x_adv: float32, the shape of x, in [0, 1] and within eps of x.
    Raises ValueError when eps or step_size is negative or not finite, steps or batch_size is below
    1, for pixels outside [0, 1] or not numbers, and for labels that do not match the images or
    the model.
    """
    step_size = 2.5 * eps / max(steps, 1) if step_size is None else step_size
    for name, value in (("eps", eps), ("step_size", step_size)):
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number of at least 0, not {value!r}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps!r}")
    contract.positive("batch_size", batch_size, whole=True)
    x, y = contract.checked(model, x, y)
    # Further is out of the box, and in float32 it may be infinite.
    eps, step_size = min(eps, 1), min(step_size, 2)
    rng = np.random.default_rng(seed)
    step_size, box = tf.constant(step_size, tf.float32), tf.constant(eps, tf.float32)
    x_adv = np.empty_like(x)
    for start in range(0, len(x), batch_size):
        batch = np.arange(start, min(start + batch_size, len(x)))
        noise = rng.uniform(-eps, eps, x[batch].shape).astype(np.float32)
        x_adv[batch] = np.clip(x[batch] + noise, 0, 1)
        for _ in range(steps):
            moved, fooled = _step(model, x[batch], x_adv[batch], y[batch], box, step_size)
            # Those who were fooled leave the batch as they are.
            going = ~fooled.numpy()
            batch = batch[going]
            if not len(batch):
                break
            x_adv[batch] = moved.numpy()[going]
    return x_adv
