"""The story that the two scripts on digits tell: choose, attack, look again.

The network is one of ours, or that of a file, whose samples may be any images.  Every step goes
through the batches side by side, in this process or on workers (engine.py).
"""

import functools
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from common import data
from common.command import Failure
from common.networks import mnist, own_model
from common.run import engine


class Attacked(NamedTuple):
    """The digits that were attacked, n of `count`, and what became of them."""

    x: np.ndarray  # float32 (n, ...)
    y: np.ndarray  # int64 (n,) labels
    y_target: np.ndarray | None  # int64 (n,)
    indices: np.ndarray | None  # int64 (n,) rows of the test set
    x_adv: np.ndarray  # float32 (n, ...)
    y_adv: np.ndarray  # int64 (n,) what the network itself says of x + (x_adv - x), as saved
    logits: np.ndarray  # float32 (n, classes) of the same
    steps: np.ndarray | None  # int64 (n,)
    count: int
    misclassified: int  # before the attack, and so left out
    are_target: int  # before the attack, and so left out
    seconds: float  # of the attack, compilation included


def read(args, limit=None, *, full_test_set=False):
    """The network of `args`, and the samples that it is attacked on, or `limit` of them: the first,
    of a file for a network of one's own as many drawn.

    args: with model, pixels and samples; of the scripts that share their work, with cluster too.
    Returns (`own_model.Network`, x, y, indices): x float32 (n, ...), y int64 (n,), indices int64
    (n,) or None.  Raises `Failure` as their readers do.
    """
    names = indices = None
    if full_test_set:
        x, y = (part[:limit] for part in data.load("test"))
        indices = np.arange(len(x))
    elif isinstance(args.model, Path):
        seed, dark = getattr(args, "seed", 0), bool(args.pixels)
        x, y, names = data.load_own_samples(args.samples, limit, seed, dark=dark)
    else:
        x, y, indices = data.load_samples(args.samples, limit)
    if isinstance(args.model, Path) and hasattr(args, "cluster"):
        engine.one_thread()
    network = own_model.open_network(args.model, x, y, names=names, pixels=args.pixels)
    return network, x, y, indices


def opened(args, limit=None, *, full_test_set=False):
    """What `read` gives, with its two Keras models: (network, model, judge, x, y, indices)."""
    network, *samples = read(args, limit, full_test_set=full_test_set)
    return network, *own_model.load(network), *samples


def attack_digits(args, network, attack, x, y, indices, y_target=None, *, batch_size):
    """Attack the digits that the model classifies correctly and not as their target.

    args: of the command line, with cluster.
    attack: attack(model, x, y) -> x_adv, or (x_adv, steps); y are the targets, or the labels
    where y_target is None.  A function of a module, or `functools.partial` of one.
    network, x, y, indices: as `read` gives them.  batch_size: digits for a core at a time, of
    larger images as many as have so many pixels.
    Raises `Failure` when none is left to attack, and where a worker has other weights.
    """
    batch_size = max(1, min(batch_size, batch_size * data.SIDE**2 // x[0].size))

    def each(run, function, *arrays):
        """What `function` returns for all batches of rows: a list of arrays."""
        starts = range(0, len(x), batch_size)
        batches = (tuple(array[i : i + batch_size] for array in arrays) for i in starts)
        found = run(function, batches, name=lambda batch: f"a batch of {len(batch[0])} digits")
        rows = list(tqdm(found, total=len(starts), unit="batch", disable=None))
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    with engine.start(args.cluster) as run:
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
        x_adv, y_adv, logits, *steps = each(
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
        y_adv=y_adv,
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
    _, judge = own_model.load(network)
    return (mnist.classify(judge, x),)


def attack_batch(attack, network, batch):
    """What a worker does: attack, and look again at what will be saved, x and noise in float32.

    Returns (x_adv, y_adv, logits), or with steps.
    """
    model, judge = own_model.load(network)
    found = attack(model, *batch)
    x_adv, *steps = found if isinstance(found, tuple) else (found,)
    return x_adv, *own_model.answers(model, judge, batch[0] + (x_adv - batch[0])), *steps
