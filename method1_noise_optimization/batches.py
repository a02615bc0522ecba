"""What the searches of method 1 share: images batch by batch, and the size of noise."""

import numpy as np
from tqdm import tqdm

from common.search import checks

# Of each method, where nothing else is asked for: gradients for an image, and images at a time.
MAX_STEPS = {"sgd": 1000, "lbfgs": 50, "minimal": 120, "fewest": 60}
BATCH_SIZE = {"sgd": 1000, "lbfgs": 500, "minimal": 500, "fewest": 500}


def search(find, model, x, y, max_steps, *settings, batch_size, stride=None, progress=False):
    """What `find` of sgd.py, lbfgs.py, minimal.py or fewest.py makes of all images: (x_adv, steps).

    model, x, y: as `checks.checked` gives them.  settings: what is its own.  stride: the images
    that it is given at a time, if they are more than the batch_size that it works on.
    """
    from common.search import margins

    stride = stride or batch_size
    model = margins.sized(model, x)
    flat = x.reshape(len(x), int(np.prod(x.shape[1:])))
    margins.check_slopes(model, flat, y, batch_size)
    x_adv, steps = np.empty_like(flat), np.empty(len(x), np.int64)
    shown, form = None if progress else True, "{l_bar}{bar}| {elapsed}<{remaining}"
    with tqdm(total=len(x), disable=shown, bar_format=form) as bar:
        for start in range(0, len(x), stride):
            batch = slice(start, start + stride)
            found = find(model, flat[batch], y[batch], max_steps, bar.update, *settings)
            x_adv[batch], steps[batch] = found
    checks.finite(x_adv, "logits or gradients")
    return x_adv.reshape(x.shape), steps


def sizes(noises):
    """|r|_2 of each noise image (n, ...), in pixel units: (n,) float64."""
    flat = noises.reshape(len(noises), int(np.prod(noises.shape[1:])))
    # Squared and summed in float64, without a copy of all the noise in it.
    return np.sqrt(np.einsum("nd,nd->n", flat, flat, dtype=np.float64))


def counts(noises):
    """|r|_0: how many pixels each noise image changes, one in colour once: (n,) integers."""
    changed = noises.any(axis=3) if noises.ndim == 4 else noises != 0
    return changed.sum(axis=tuple(range(1, changed.ndim)))
