"""The story that the two scripts on digits tell: choose, attack, look again.

Every step goes through the batches side by side, in this process or on workers (engine.py).
"""

import functools
import platform
import time
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from common import engine, files, models
from common.command import Failure


class Attacked(NamedTuple):
    """The digits that were attacked, n of `count`, and what became of them."""

    x: np.ndarray  # float32 (n, 28, 28)
    y: np.ndarray  # int64 (n,) labels
    y_target: np.ndarray | None  # int64 (n,)
    indices: np.ndarray | None  # int64 (n,) rows of the test set
    x_adv: np.ndarray  # float32 (n, 28, 28)
    logits: np.ndarray  # float32 (n, 10) of x_adv
    steps: np.ndarray | None  # int64 (n,)
    count: int
    misclassified: int  # before the attack, and so left out
    are_target: int  # before the attack, and so left out
    seconds: float  # of the attack, compilation included


def attack_digits(args, attack, x, y, indices, y_target=None, *, batch_size):
    """Attack the digits that the model classifies correctly and not as their target.

    args: of the command line, with model, workers and cluster.
    attack: attack(model, x, y) -> x_adv, or (x_adv, steps); y are the targets, or the labels
    where y_target is None.  A function of a module, or `functools.partial` of one.
    x: float32 (n, 28, 28), y: int64 (n,), indices: int64 (n,) or None, as `data.load_samples`
    gives them.  batch_size: digits for a core at a time.
    Raises `Failure` when none is left to attack, and where a worker has other weights.
    """
    network = _network(args)

    def each(run, function, *arrays):
        """What `function` returns for all batches of rows: a list of arrays."""
        starts = range(0, len(x), batch_size)
        batches = (tuple(array[i : i + batch_size] for array in arrays) for i in starts)
        found = run(function, batches, name=lambda batch: f"a batch of {len(batch[0])} digits")
        rows = list(tqdm(found, total=len(starts), unit="batch", disable=None))
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    with engine.start(args.workers, args.cluster) as run:
        (y_pred,) = each(run, functools.partial(classify_batch, network), x)
        right = y_pred == y
        is_target = right & (False if y_target is None else y == y_target)
        kept = right & ~is_target
        if not kept.any():
            raise Failure(f"none of the {len(x)} digits is left to attack: choose other ones")
        x, y, y_target, indices = (
            None if array is None else array[kept] for array in (x, y, y_target, indices)
        )
        start = time.perf_counter()
        x_adv, logits, *steps = each(
            run,
            functools.partial(attack_batch, attack, network),
            x,
            y if y_target is None else y_target,
        )
        seconds = time.perf_counter() - start
    return Attacked(
        x=x,
        y=y,
        y_target=y_target,
        indices=indices,
        x_adv=x_adv,
        logits=logits,
        steps=steps[0] if steps else None,
        count=len(right),
        misclassified=int((~right).sum()),
        are_target=int(is_target.sum()),
        seconds=seconds,
    )


def classify_batch(network, batch):
    """What a worker does to choose: a label for each digit."""
    (x,) = batch
    return (models.classify(_load(*network), x),)


def attack_batch(attack, network, batch):
    """What a worker does: attack, and look again.  Returns (x_adv, logits), or with steps."""
    model = _load(*network)
    found = attack(model, *batch)
    x_adv, *steps = found if isinstance(found, tuple) else (found,)
    return x_adv, models.predict(model, x_adv), *steps


def _network(args):
    """What names the network to a worker: its name, and path and SHA-256 of its weights."""
    path = models.weights_path(args.model)
    elsewhere = (args.workers or args.cluster) and path.is_file()
    # From the root, since a checkout may lie elsewhere on another machine.
    return args.model, files.from_root(path), files.sha256(path) if elsewhere else None


@engine.once
def _load(name, path, sha256):
    path = files.ROOT / path
    model = models.load(name, path)
    if sha256 and files.sha256(path) != sha256:
        raise Failure(f"{path} is another file on {platform.node()}: copy it there from here")
    return model
