"""Attack digits batch by batch, in this process or on workers (engine.py)."""

import functools
import platform

import numpy as np
from tqdm import tqdm

from common import files, models
from common.command import Failure


def attack_digits(run, attack, network, x, y, *, batch_size, progress=True):
    """What attack(model, x, y) returns for all digits: an array or a tuple of them, a row each.

    run: from `engine.start`.  attack: a function of a module, or `functools.partial` of one.
    network: the model's name.  x: float32 (n, 28, 28), n at least 1.  y: int64 (n,).
    batch_size: so many go to a worker at a time.  progress: show a bar (on a terminal).
    Raises `Failure` where a worker has other weights than this process.
    """
    starts = range(0, len(x), batch_size)
    results = run(
        functools.partial(attack_batch, attack, network, _weights(network)),
        ((x[i : i + batch_size], y[i : i + batch_size]) for i in starts),
        name=lambda batch: f"a batch of {len(batch[0])} digits",
    )
    bar = tqdm(results, total=len(starts), unit="batch", disable=None if progress else True)
    found = list(bar)
    if isinstance(found[0], tuple):
        return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
    return np.concatenate(found)


def attack_batch(attack, network, weights, batch):
    """What a worker does.  weights: path from the root and SHA-256 of the model's file."""
    return attack(_load(network, *weights), *batch)


def load(network):
    """The trained model that `attack_digits` uses in this process: `models.load`, once."""
    return _load(network, *_weights(network))


def _weights(network):
    path = models.weights_path(network)
    # From the root, since a checkout may lie elsewhere on another machine.
    return files.from_root(path), files.sha256(path) if path.is_file() else None


@functools.lru_cache(maxsize=1)
def _load(network, path, sha256):
    path = files.ROOT / path
    model = models.load(network, path)
    if files.sha256(path) != sha256:
        raise Failure(f"{path} is another file on {platform.node()}: copy it there from here")
    return model
