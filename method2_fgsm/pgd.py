"""Projected gradient descent: the fast gradient sign, many times over (Kurakin, Goodfellow &
Bengio 2017, "Adversarial examples in the physical world"; with the random start of Madry et al.
2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", section 2.1).

A network can be trained until one sign step no longer hurts it, without being any harder to fool:
its gradient simply points elsewhere.  Many small steps show the difference.
"""

import numpy as np
import tensorflow as tf

from common.search import checks
from common.search.compiled import compiled
from common.search.margins import margin
from common.search.random_numbers import generators
from method2_fgsm.fgsm import sign_and_logits

LOSSES = ("cross entropy", "margin")


@compiled
def projected_step(model, x, x_adv, y, eps, step_size):
    """One step away from y, projected onto the box of half-width eps around x and onto [0, 1].

    Returns the moved batch, and the logits of x_adv as it was before the step.
    """
    sign, logits = sign_and_logits(model, x_adv, y)
    return project(x, x_adv + step_size * sign, eps), logits


@compiled
def projected_margin_step(model, x, x_adv, y, eps, step_size):
    """The same, downhill on the margin of y (n,), or uphill on z_t - z_y for pairs t, y (n, 2)."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x_adv)
        logits = model(x_adv, training=False)
        g = margin(logits, y) if y.shape.rank == 2 else -margin(logits, y)
    sign = tf.sign(tape.gradient(g, x_adv))
    return project(x, x_adv + step_size * sign, eps), logits


def project(x, x_adv, eps):
    """The point nearest to x_adv within eps of x and in [0, 1]."""
    return tf.clip_by_value(tf.clip_by_value(x_adv, x - eps, x + eps), 0, 1)


def pgd(
    model,
    x,
    y,
    eps,
    *,
    steps=40,
    step_size=None,
    loss="cross entropy",
    y_target=None,
    seed=0,
    batch_size=1000,
):
    """Up to `steps` sign steps away from the labels y, never further than eps from x:

        x_adv ← clip(x_adv + step_size * sign(∇ₓ J(x_adv, y)))  to [x - eps, x + eps] and [0, 1]

    It starts at a random point of that box.  An image that is misclassified moves no further.

    x, y, eps: as in `fgsm.fgsm`.  step_size: a number, in pixel units too; if not given,
    2.5 * eps / steps, so that the whole box is within reach.
    loss: J is the "cross entropy", or the "margin" max_{k≠y} z_k - z_y of the logits (Carlini &
    Wagner 2017), whose gradient does not fade where the model is sure.  y_target: integers (n,),
    classes for the margin to be taken with instead of the strongest other (Gowal et al. 2019,
    "An Alternative Surrogate Loss for PGD-based Adversarial Testing").
    seed: of the random start, which depends neither on batch_size nor on the other images.
    Returns x_adv: float32, the shape of x, in [0, 1] and within eps of x.
    Raises ValueError as `common/search/checks.py` says.
    """
    checks.positive("steps", steps, whole=True)
    checks.positive("batch_size", batch_size, whole=True)
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}: choose one of {', '.join(LOSSES)}")
    x, y = checks.checked(model, x, y)
    eps = checks.pixel_size("eps", eps, x)
    if step_size is None:
        step_size = 2.5 * eps / steps
    elif checks.number("step_size", step_size):
        checks.positive("step_size", step_size)
    goal = y
    if y_target is not None:
        if loss != "margin":
            raise ValueError("y_target goes with the loss 'margin'")
        goal = np.stack([checks.checked(model, x, y_target, name="targets")[1], y], axis=1)
    step = projected_margin_step if loss == "margin" else projected_step
    step_size = np.broadcast_to(np.float32(step_size), eps.shape)
    eps = np.float32(eps)
    x_adv = np.empty_like(x)
    for start in range(0, len(x), batch_size):
        batch = np.arange(len(x))[start : start + batch_size]
        u = np.stack([rng.random(x.shape[1:], np.float32) for rng in generators(x[batch], seed)])
        x_adv[batch] = np.clip(x[batch] + eps[batch] * (2 * u - 1), 0, 1)
        for _ in range(steps):
            moved, logits = step(
                model, x[batch], x_adv[batch], goal[batch], eps[batch], step_size[batch]
            )
            checks.finite(logits.numpy(), "logits or gradients")
            right = logits.numpy().argmax(axis=1) == y[batch]
            batch = batch[right]
            if not len(batch):
                break
            x_adv[batch] = moved.numpy()[right]
    checks.finite(x_adv, "logits or gradients")
    return x_adv
