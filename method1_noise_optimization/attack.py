"""The smallest noise that turns an image into another class, by three methods.

    sgd       gradient descent on the noise, stopped where the target is reached     sgd.py
    lbfgs     minimise c |r| + loss(x + r, t) in the box (Szegedy et al. 2014)       lbfgs.py
    minimal   project exactly onto averaged linearisations: the smallest noise       minimal.py

Each works on a whole batch at once, with a target for each image, and for any Keras model from
images in [0, 1] to logits.
"""

import numpy as np
from tqdm import tqdm

from common import contract
from method1_noise_optimization import lbfgs, minimal, sgd
from method1_noise_optimization.settings import BATCH_SIZE, MAX_STEPS, METHODS, REGULARIZATIONS


def find_noise(model, x, y_target, **settings):
    """Noise r with which clip(x + r, 0, 1) is classified as its target, where it can be found.

    The arguments are those of `search`.  Returns the noise alone: float32, the shape of x.
    """
    return search(model, x, y_target, **settings)[0]


def search(
    model,
    x,
    y_target,
    *,
    method="sgd",
    regularization="l2",
    learning_rate=0.008,
    max_steps=None,
    batch_size=None,
    progress=False,
):
    """Find the noise, and say how many steps it took.

    x: float32 (n, ...) in [0, 1].  y_target: integers (n,).
    method: "sgd", "lbfgs" or "minimal".
    regularization ("none", "l1": mean |r|, "l2": mean r²) and learning_rate: for sgd alone.
    max_steps: gradients for each image at most; for lbfgs, steps for one value of c, of which it
    tries 13.  None is the method's own default.
    batch_size: images at a time; memory grows with it, and with n only by the result itself.
    progress: show a progress bar (on a terminal).
    Returns (noise, steps): float32 like x, with x + noise in [0, 1], and int64 (n,).  Where the
    target was not reached the noise is what the method ended with; `reached` tells which.  An
    image that is classified as its target already gets no noise; logits that are `leads.LEAD` or
    less apart are a tie, and no class.
    Raises ValueError for an unknown method or regularization, and for images, targets or
    numbers that do not fit the model or each other.
    """
    x, y_target = contract.checked(model, x, y_target, name="targets")
    for name, value, known in (
        ("method", method, METHODS),
        ("regularization", regularization, REGULARIZATIONS),
    ):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
    max_steps = MAX_STEPS[method] if max_steps is None else max_steps
    batch_size = BATCH_SIZE[method] if batch_size is None else batch_size
    contract.positive("learning_rate", learning_rate)
    contract.positive("max_steps", max_steps, whole=True)
    contract.positive("batch_size", batch_size, whole=True)

    flat = x.reshape(len(x), int(np.prod(x.shape[1:])))
    noise = np.empty_like(flat)
    steps = np.empty(len(x), np.int64)
    bar = tqdm(
        total=len(x),
        disable=None if progress else True,
        bar_format="{l_bar}{bar}| {elapsed}<{remaining}",
    )
    with bar:
        # sgd refills its batch as images finish; the others take one batch after the other.
        stride = len(x) if method == "sgd" else batch_size
        for start in range(0, len(x), stride or 1):
            batch = slice(start, start + stride)
            part = flat[batch], y_target[batch]
            if method == "sgd":
                x_adv, steps[batch] = sgd.find(
                    model,
                    *part,
                    regularization=regularization,
                    learning_rate=learning_rate,
                    max_steps=max_steps,
                    batch_size=batch_size,
                    progress=bar.update,
                )
            else:
                find = lbfgs.find if method == "lbfgs" else minimal.find
                x_adv, steps[batch] = find(model, *part, max_steps=max_steps, progress=bar.update)
            noise[batch] = x_adv - flat[batch]
    return noise.reshape(x.shape), steps


def reached(model, x, noise, y_target, batch_size=10000):
    """Which of the images clip(x + noise, 0, 1) are classified as their targets: bool (n,)."""
    return classify(model, x, noise, batch_size) == y_target


def classify(model, x, noise, batch_size=10000):
    """What the model says of clip(x + noise, 0, 1): int64 (n,)."""
    from common import models

    labels = np.empty(len(x), np.int64)
    for start in range(0, len(x), batch_size):
        batch = slice(start, start + batch_size)
        labels[batch] = models.classify(model, np.clip(x[batch] + noise[batch], 0, 1))
    return labels
