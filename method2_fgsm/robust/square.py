"""Random search over squares: an attack that asks the model for its answers alone, never for a
gradient (Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial
attack via random search", algorithms 1 and 2).

What it finds, a gradient should find too.  Where it finds more, the gradient is masked.
"""

import numpy as np
import tensorflow as tf

from common.networks import mnist
from common.search import checks, margins
from common.search.random_numbers import generators

# The share of the image that a square covers: at first, and where it halves, of 10,000 queries.
FIRST_SHARE = 0.8
HALVINGS = np.array([10, 50, 200, 1000, 2000, 4000, 6000, 8000]) / 10000


def square(model, x, y, eps, *, queries=1000, seed=0, batch_size=1000):
    """Squares of x ± eps, one after the other, kept where they bring the image nearer to an error.

    It starts from vertical stripes of x ± eps, a pixel wide.  Each query then sets one square at a
    random place to x + eps or x - eps, a sign for each channel, and keeps it if the margin of the
    label falls.  The squares grow smaller with time.  A misclassified image is left as it is.

    x, eps, seed: as in `pgd.pgd`, x (n, height, width) or (n, height, width, channels).
    queries: how often each image is shown to the model at most.
    Returns x_adv: float32, the shape of x, in [0, 1] and within eps of x.
    Raises ValueError as `common/search/checks.py` says.
    """
    checks.positive("queries", queries, whole=True)
    checks.positive("batch_size", batch_size, whole=True)
    x, y = checks.checked(model, x, y)
    eps = np.float32(checks.pixel_size("eps", eps, x))
    n, height, width, channels = (*x.shape, 1)[:4]
    x_adv = x.reshape(n, height, width, channels).copy()
    low, high = (np.clip(end, 0, 1).reshape(x_adv.shape) for end in (x - eps, x + eps))

    def margin_of(images, chosen):
        logits = mnist.predict(model, images.reshape(-1, *x.shape[1:]), batch_size)
        return margins.margin(tf.constant(logits), tf.constant(y[chosen])).numpy()

    margin = margin_of(x_adv, np.arange(n))
    active = np.flatnonzero(margin > 0)
    # For each query two numbers that say where, and one for each channel that says which way.
    numbers = np.empty((n, queries, 2 + channels), np.float32)
    for image, rng in zip(active, generators(x[active], seed), strict=True):
        up = rng.random((width, channels)) < 0.5
        x_adv[image] = np.where(up, high[image], low[image])
        rng.random(out=numbers[image], dtype=np.float32)
    margin[active] = margin_of(x_adv[active], active)
    rows, columns = np.arange(height)[:, np.newaxis, np.newaxis], np.arange(width)[:, np.newaxis]
    for query in range(1, queries):
        share = FIRST_SHARE / 2 ** np.searchsorted(HALVINGS * queries, query)
        side = int(np.clip(round((share * height * width) ** 0.5), 1, min(height, width) - 1))
        active = active[margin[active] > 0]
        if not len(active):
            break
        drawn = numbers[active, query, np.newaxis, np.newaxis]
        top = (drawn[..., :1] * (height - side + 1)).astype(int)
        left = (drawn[..., 1:2] * (width - side + 1)).astype(int)
        up = drawn[..., 2:] < 0.5
        inside = (top <= rows) & (rows < top + side) & (left <= columns) & (columns < left + side)
        tried = np.where(inside, np.where(up, high[active], low[active]), x_adv[active])
        found = margin_of(tried, active)
        better = found < margin[active]
        x_adv[active[better]], margin[active[better]] = tried[better], found[better]
    return x_adv.reshape(x.shape)
