"""Random search over squares: an attack that asks the model for its answers alone, never for a
gradient (Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial
attack via random search", algorithms 1 and 2).

What it finds, a gradient should find too.  Where it finds more, the gradient is masked.
"""

import numpy as np

from common import contract, models

# The share of the image that a square covers: at first, and where it halves, of 10,000 queries.
FIRST_SHARE = 0.8
HALVINGS = np.array([10, 50, 200, 1000, 2000, 4000, 6000, 8000]) / 10000


def square(model, x, y, eps, *, queries=1000, seed=0, batch_size=1000):
    """Squares of x ± eps, one after the other, kept where they bring the image nearer to an error.

    It starts from vertical stripes of x ± eps, a pixel wide.  Each query then sets one square at a
    random place to x + eps or x - eps, a sign for each channel, and keeps it if the lead of the
    label, z_y - max_{k≠y} z_k, falls.  The squares grow smaller with time.  An image that is
    misclassified is left as it is.

    x: float32 (n, height, width) or (n, height, width, channels) in [0, 1].  y: integers (n,).
    eps: from 0 to 1, in pixel units.  queries: how often each image is shown to the model at most.
    seed: of the stripes, the places and the signs; they do not depend on batch_size.
    Returns x_adv: float32, the shape of x, in [0, 1] and within eps of x.
    Raises ValueError when eps is not in [0, 1], queries or batch_size is below 1, for pixels
    outside [0, 1] or not numbers, and for labels that do not match the images or the model.
    """
    contract.pixel_size("eps", eps)
    contract.positive("queries", queries, whole=True)
    contract.positive("batch_size", batch_size, whole=True)
    x, y = contract.checked(model, x, y)
    if not len(x):
        return x.copy()
    rng = np.random.default_rng(seed)
    n, height, width, channels = images = (*x.shape, 1)[:4]
    low, high = np.clip(x - np.float32(eps), 0, 1), np.clip(x + np.float32(eps), 0, 1)

    def lead(x_adv, chosen):
        logits = models.predict(model, x_adv, batch_size)
        own = logits[np.arange(len(chosen)), y[chosen]]
        logits[np.arange(len(chosen)), y[chosen]] = -np.inf
        return own - logits.max(axis=1)

    margin = lead(x, np.arange(n))
    up = rng.random((n, 1, width, channels)) < 0.5
    striped = np.where(np.broadcast_to(up, images).reshape(x.shape), high, low)
    active = np.flatnonzero(margin > 0)
    x_adv = x.copy()
    x_adv[active] = striped[active]
    margin[active] = lead(x_adv[active], active)
    rows, columns = np.arange(height)[:, np.newaxis, np.newaxis], np.arange(width)[:, np.newaxis]
    for query in range(1, queries):
        share = FIRST_SHARE / 2 ** np.searchsorted(HALVINGS * queries, query)
        side = int(np.clip(round((share * height * width) ** 0.5), 1, min(height, width) - 1))
        # For all images, the finished ones too, so that each has its own numbers.
        top = rng.integers(0, height - side + 1, (n, 1, 1, 1))
        left = rng.integers(0, width - side + 1, (n, 1, 1, 1))
        up = rng.random((n, 1, 1, channels)) < 0.5
        active = active[margin[active] > 0]
        if not len(active):
            break
        top, left, up = top[active], left[active], up[active]
        inside = (top <= rows) & (rows < top + side) & (left <= columns) & (columns < left + side)
        shape = (len(active), *x.shape[1:])
        inside = np.broadcast_to(inside, (len(active), *images[1:])).reshape(shape)
        up = np.broadcast_to(up, (len(active), *images[1:])).reshape(shape)
        tried = np.where(inside, np.where(up, high[active], low[active]), x_adv[active])
        found = lead(tried, active)
        better = found < margin[active]
        x_adv[active[better]], margin[active[better]] = tried[better], found[better]
    return x_adv
