"""Attack digits, or the samples of a `.keras` file, batch by batch: choose, attack, look again."""

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
    """What became of the n digits that were attacked."""

    arrays: dict  # for `results.save`: `steps`, `y_targets` or `indices` may be None
    logits: np.ndarray  # float32 (n, classes) of what is saved, xs + noises
    left_out: int  # before the attack: misclassified, or classified as the target
    table: list  # lines that say so
    seconds: float  # of the attack, compilation included


def read(args, limit=None, *, full_test_set=False):
    """`own_model.open_with_samples`, with one thread an operation (engine.py) for a file."""
    if isinstance(args.model, Path):
        engine.one_thread()
    return own_model.open_with_samples(args, limit, full_test_set=full_test_set)


def attack_digits(network, attack, x, y, indices, target=None, *, cluster=None, batch_size):
    """Attack the digits that the network classifies correctly and not as their target: `Attacked`.

    network, x, y, indices: as `read` gives them.  target: the class to reach, an int or integers
    (n,); None: leave the label.  attack(model, x, y) -> x_adv, or (x_adv, steps), as `engine.start`
    takes it; y: the labels to leave, or to reach.  batch_size: digits for a core at a time, or as
    many pixels.  Raises `Failure` when none is left, and where a worker has other weights.
    """
    batch_size = max(1, min(batch_size, batch_size * data.SIDE**2 // x[0].size))

    def each(function, *arrays):
        """What `function` returns for all batches of rows: an array, or None, for each result."""
        starts = range(0, len(x), batch_size)
        batches = (tuple(array[i : i + batch_size] for array in arrays) for i in starts)
        found = run(function, batches, name=lambda batch: f"a batch of {len(batch[0])} digits")
        parts = zip(*tqdm(found, total=len(starts), unit="batch", disable=None), strict=True)
        return [None if part[0] is None else np.concatenate(part) for part in parts]

    y_target = None if target is None else np.broadcast_to(target, y.shape)
    with engine.start(cluster) as run:
        (y_pred,) = each(functools.partial(classify_batch, network), x)
        right = y_pred == y
        kept = right if target is None else right & (y != y_target)
        table = [
            f"images                       {len(x):10d}",
            f"left out: misclassified      {(~right).sum():10d}",
        ]
        if isinstance(target, int):
            already = f"left out: are a {network.label(target)} already"
            table.append(f"{already:28} {(right & ~kept).sum():10d}")
        if not kept.any():
            raise Failure(f"all {len(x)} images are misclassified or the target: choose others")
        x, y, y_target, indices = (
            None if array is None else array[kept] for array in (x, y, y_target, indices)
        )
        start = time.perf_counter()
        work = functools.partial(attack_batch, network, attack)
        x_adv, y_adv, logits, steps = each(work, x, y if target is None else y_target)
        seconds = time.perf_counter() - start
    arrays = {"xs": x, "noises": x_adv - x, "steps": steps, "y_targets": y_target}
    # Only digits that are classified correctly are here.
    arrays |= {"y_trues": y, "y_preds": y, "y_preds_adversarial": y_adv, "indices": indices}
    return Attacked(arrays, logits, int((~kept).sum()), table, seconds)


def classify_batch(network, batch):
    """What a worker does to choose: a label for each digit."""
    return (mnist.classify(own_model.load(network)[1], batch[0]),)


def attack_batch(network, attack, batch):
    """Attack a batch (x, y) of digits or photographs, and look again.

    Returns (x_adv, labels, logits, steps): what the network says of x + (x_adv - x), which is
    saved, and None where the attack counts no steps.
    """
    model, judge = own_model.load(network)
    x, y = batch
    found = attack(model, x, y)
    x_adv, steps = found if isinstance(found, tuple) else (found, None)
    return x_adv, *own_model.answers(model, judge, x + (x_adv - x)), steps
