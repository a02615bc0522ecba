"""The smallest noise that turns an image into another class, by four methods.

    sgd       gradient descent on the noise, stopped where the target is reached     sgd.py
    lbfgs     minimise c |r| + loss(x + r, t) in the box (Szegedy et al. 2014)       lbfgs.py
    minimal   project exactly onto an averaged linearisation: the smallest noise      minimal.py
    fewest    sort the pixels by what they gain on one: the fewest pixels             fewest.py

Each works on a whole batch at once, with a target for each image; the last two also without, for
the nearest of the other classes.  Importing this module does not import TensorFlow.
"""

import numpy as np

from common.networks import mnist
from common.search import checks
from method1_noise_optimization import batches
from method1_noise_optimization.batches import BATCH_SIZE, MAX_STEPS, counts, sizes

METHODS = ("sgd", "lbfgs", "minimal", "fewest")
UNTARGETED = METHODS[2:]
REGULARIZATIONS = ("none", "l1", "l2")
LEARNING_RATE = 0.008  # of sgd
STARTS = 8  # of minimal, where only the smallest noise will do


def find_noise(model, x, y, **settings):
    """Noise r with which clip(x + r, 0, 1) is classified as its target, where it can be found.

    The arguments are those of `search`.  Returns the noise alone: float32, the shape of x.
    """
    return search(model, x, y, **settings)[0] - np.asarray(x, np.float32)


def search(
    model,
    x,
    y,
    *,
    targeted=True,
    method="sgd",
    regularization="l2",
    learning_rate=LEARNING_RATE,
    max_steps=None,
    starts=1,
    confidence=None,
    batch_size=None,
    progress=False,
):
    """Find the adversarial images, and say how many steps each took.

    model: any Keras model from images to logits.  x: float32 (n, ...) in [0, 1].  y: integers (n,),
    the targets; untargeted, the labels to leave, for whichever class is nearest.
    method: one of METHODS; untargeted, of UNTARGETED.
    regularization ("none", "l1": mean |r|, "l2": mean r²) and learning_rate: for sgd alone.
    max_steps: gradients for each image at most; for lbfgs, steps for one value of c, of which it
    tries 13, and for minimal and fewest, at each start; choosing among the classes, where there is
    no target, takes 3.5 times as many, for fewest 7 times.  None is the method's own default.
    starts: of minimal, at most; more find smaller noise, and never larger.
    confidence: the softmax probability that the target, or untargeted the class that comes instead
    of the label, has to be above; None: it only has to be the largest.
    batch_size: images at a time; memory grows with it, and with n only by the result itself.
    progress: show a progress bar (on a terminal).
    Returns (x_adv, steps): float32 like x, in [0, 1], and int64 (n,).  Where the target was not
    reached, x_adv is what the method ended with, and without targets x.  An image that is
    classified as its target already, or not as its label, stays as it is, if that is sure enough;
    logits no further apart than they are rounded are a tie, and no class.
    Raises ValueError as `common/search/checks.py` says.
    """
    x, y = checks.checked(model, x, y, name="targets" if targeted else "labels")
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if regularization not in REGULARIZATIONS:
        known = ", ".join(REGULARIZATIONS)
        raise ValueError(f"unknown regularization {regularization!r}: choose one of {known}")
    if method not in UNTARGETED and not targeted:
        raise ValueError(f"{method} needs targets: without them choose {' or '.join(UNTARGETED)}")
    max_steps = MAX_STEPS[method] if max_steps is None else max_steps
    batch_size = BATCH_SIZE[method] if batch_size is None else batch_size
    checks.positive("learning_rate", learning_rate)
    counts = {"max_steps": max_steps, "starts": starts, "batch_size": batch_size}
    for name, count in counts.items():
        checks.positive(name, count, whole=True)
    checks.probability("confidence", confidence)

    from method1_noise_optimization import fewest, lbfgs, minimal, sgd

    if method == "sgd":
        find, settings = sgd.find, (regularization, learning_rate, batch_size)
    elif method == "lbfgs":
        find, settings = lbfgs.find, ()
    elif method == "fewest":
        find, settings = fewest.find if targeted else fewest.find_nearest, ()
    else:
        find, settings = minimal.find if targeted else minimal.find_nearest, (starts,)
    # sgd refills its batch as images finish; the others take one batch after the other.
    stride = max(len(x), 1) if method == "sgd" else batch_size
    if confidence is not None:
        from common.search import margins

        model = margins.sure(margins.sized(model, x), float(confidence))
        if not targeted:  # nor may it become the class for "not sure enough"
            y = np.column_stack([y, np.full_like(y, model.output_shape[-1] - 1)])
    how = {"batch_size": batch_size, "stride": stride, "progress": progress}
    return batches.search(find, model, x, y, max_steps, *settings, **how)


def reached(model, x, noise, y, *, targeted=True, confidence=0):
    """Which of the images clip(x + noise, 0, 1) are classified as their targets, or untargeted,
    not as their labels, with a probability above `confidence`: bool (n,)."""
    p = mnist.softmax(mnist.predict(model, np.clip(x + noise, 0, 1)).astype(np.float64))
    return ((p.argmax(axis=1) == y) == targeted) & (p.max(axis=1) > confidence)


def random_targets(y, seed, classes=10):
    """A target for each label y (n,), any of the other classes with the same chance."""
    return (y + np.random.default_rng(seed).integers(1, classes, len(y))) % classes


def distortions(noises):
    """sqrt(mean r²) over the pixels of each noise image, (n,): Szegedy et al. 2014, section 4.2."""
    return sizes(noises) / np.sqrt(np.prod(noises.shape[1:]))


def summary(noises, reached, goal="the target"):
    """Lines of a table: how many reached their goal (bool (n,)), and the noise of all of them."""
    measures = {
        "|r|_2, mean": sizes(noises).mean(),
        "|r|_2, median": np.median(sizes(noises)),
        "|r|_0 (pixels), mean": counts(noises).mean(),
        "distortion sqrt(mean r²)": distortions(noises).mean(),
        "noise mean |r|": np.abs(noises).mean(),
        "noise max": noises.max(),
        "noise min": noises.min(),
    }
    lines = [f"attacked{len(noises):31d}", f"reached {goal:20}{reached.mean():11.2%}"]
    return "\n".join([*lines, *(f"{name:28}{value:11.4f}" for name, value in measures.items())])
