"""Adversarial training on several replicas: GPUs of one machine, or several machines.

Every replica holds the whole network, takes its share of each batch, and the gradients are
summed over all replicas before the step, so that the network is the one that a single replica
would have trained: the batches depend on the seed and the epoch alone, and the sum is the
gradient of the mean loss over the whole batch, however unevenly it splits.  (Dropout is the
exception: each replica draws its own mask.)

Equal gradients are not enough, though.  A sum taken in another order rounds differently, the
difference flips a sign in some adversarial image, and after an epoch the weights of an MLP are
another network's.  So one replica takes each batch in the two parts that two replicas would, and
all three add the same numbers.  With more than two, training is the same only up to this.

The loop is our own because Keras's `fit` does not work under MultiWorkerMirroredStrategy.

After each epoch the state goes into a checkpoint.  A run that was interrupted, or lost a worker,
goes on from the last one when it is started again with the same settings, on as many workers as
you like; once the weights are written the checkpoints are removed.
"""

import json
import shutil
import tempfile

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from common import data, files, models
from common.command import Failure
from method2_fgsm.adversarial_loss import adversarial_loss

STEPS_A_CALL = 50
# What TensorFlow raises when another worker is gone, depending on what it was doing.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnknownError,
)


def checkpoints_path(name):
    """The folder of a model's checkpoints while it is trained, beside its weights."""
    return files.WEIGHTS / f"{name}_checkpoints"


def order(count, seed, epoch):
    """The order of the digits in an epoch: a permutation (count,) that the replicas share."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def part(batch, replica, replicas):
    """A replica's share of a batch of row numbers, and the weight of its mean loss.

    The weights of all replicas sum to one, so that the sum of their weighted gradients is the
    gradient of the whole batch's mean.  A replica for which no row is left looks at one with the
    weight zero, since it has to take part in the exchange.
    """
    own = batch[replica::replicas]
    return (own, len(own) / len(batch)) if len(own) else (batch[:1], 0.0)


def fit(name, strategy, worker, *, optimizer, epochs, batch_size, seed, eps, alpha):
    """Train a new model under `strategy`.

    Returns (model, epochs): a plain model of this process, and how many epochs were left to do.
    optimizer: `optimizer(steps)` makes the Keras optimizer for that many steps in all.
    batch_size: digits a step, over all replicas.  Raises `Failure` when training diverges or
    another worker is lost.
    """
    x, y = data.load("train")
    keras.utils.set_random_seed(seed)
    batches = -(-len(x) // batch_size)
    try:
        with strategy.scope():
            model = models.build(name)
            adam = optimizer(epochs * batches)
            adam.build(model.trainable_variables)
            epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
            # Each replica adds to its own; reading sums them: loss, digits, and right ones.
            totals = tf.Variable(
                tf.zeros(3),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
        settings = {
            "model": name,
            "epochs": epochs,
            "batch_size": batch_size,
            "seed": seed,
            "eps": eps,
            "alpha": alpha,
            "optimizer": str(keras.optimizers.serialize(adam)),
            "digits": len(x),
        }
        checkpoint = tf.train.Checkpoint(model=model, optimizer=adam, epoch=epoch)
        save = _resume(checkpoint, epoch, name, settings, strategy, worker)
        train = _training(model, adam, totals, eps, alpha, strategy)
        first = int(epoch.numpy())
        for now in range(first, epochs):
            totals.assign(tf.zeros(3))
            shuffled = order(len(x), seed, now)
            bar = tqdm(
                _calls(shuffled, batch_size),
                desc=f"epoch {now + 1}/{epochs}",
                unit="call",
                disable=True if worker.rank else None,
                leave=False,
            )
            for rows in bar:
                train(_distributed(strategy, x, y, rows))
            loss, seen, right = totals.numpy()
            if not worker.rank:
                print(
                    f"epoch {now + 1}/{epochs}: loss {loss / batches:.4f}, "
                    f"accuracy {right / seen:.4f}",
                    flush=True,
                )
            epoch.assign(now + 1)
            save()
        weights = model.get_weights()
    except LOST as error:
        if worker.count == 1:
            raise
        raise Failure(
            f"{worker} has lost another worker ({type(error).__name__}): start all of them again "
            "with the same command; training goes on from the last complete epoch"
        ) from error
    if not all(np.isfinite(w).all() for w in weights):
        raise Failure(f"training the {models.title(name)} diverged: try a smaller --learning-rate")
    # Under the strategy even `predict` would be one for all workers.
    plain = models.build(name)
    plain.set_weights(weights)
    return plain, epochs - first


def _calls(shuffled, batch_size):
    """The batches of an epoch, up to STEPS_A_CALL to a call: row numbers (steps, batch size).

    The last batch, where it is smaller, is a call of its own.
    """
    whole = len(shuffled) // batch_size * batch_size
    batches = shuffled[:whole].reshape(-1, batch_size)
    calls = [batches[i : i + STEPS_A_CALL] for i in range(0, len(batches), STEPS_A_CALL)]
    return calls + ([shuffled[np.newaxis, whole:]] if whole < len(shuffled) else [])


def _distributed(strategy, x, y, rows):
    """For each replica of this process its share of the batches `rows` (steps, digits).

    The share is a tuple of parts, two for a replica that is alone, otherwise one: images
    (steps, part, 28, 28), labels (steps, part) and the part's weight.
    """

    def for_replica(context):
        replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync
        share = []
        for number in (0, 1) if replicas == 1 else (replica,):
            parts = [part(batch, number, max(replicas, 2)) for batch in rows]
            own, weight = np.stack([own for own, _ in parts]), parts[0][1]
            share.append((x[own], y[own], np.float32(weight)))
        return tf.nest.map_structure(tf.constant, tuple(share))

    return strategy.experimental_distribute_values_from_function(for_replica)


def _training(model, optimizer, totals, eps, alpha, strategy):
    """A compiled function that trains on several batches, as `_distributed` gives them."""

    def step(share, k):
        variables = model.trainable_variables
        gradients = []
        for xs, ys, weight in share:
            x, y = xs[k], ys[k]
            with tf.GradientTape() as tape:
                mean, logits = adversarial_loss(model, x, y, eps, alpha)
                loss = weight * mean
            gradients.append(tape.gradient(loss, variables))
            right = tf.cast(tf.argmax(logits, axis=1) == y, tf.float32)
            counts = tf.stack([tf.reduce_sum(tf.ones_like(right)), tf.reduce_sum(right)])
            counts = tf.where(weight > 0, counts, 0)
            totals.assign_add(tf.concat([[loss], counts], axis=0))
        # Inside a replica Keras's optimizers sum the gradients over all replicas.
        optimizer.apply([tf.add_n(parts) for parts in zip(*gradients, strict=True)], variables)

    @tf.function(reduce_retracing=True)
    def train(share, steps):
        for k in tf.range(steps):
            strategy.run(step, args=(share, k))

    def train_batches(share):
        first = strategy.experimental_local_results(share)[0]
        train(share, tf.shape(first[0][1])[0])

    return train_batches


def _resume(checkpoint, epoch, name, settings, strategy, worker):
    """Go on from a checkpoint of the same settings, if there is one; returns `save()`.

    Worker 1 writes the checkpoints.  The others have to take part (variables may be spread over
    the workers), but to a folder that is thrown away.
    """
    folder = checkpoints_path(name)
    said = folder / "settings.json"
    if not worker.rank:
        try:
            same = json.loads(said.read_text(encoding="utf-8")) == settings
        except (OSError, ValueError):
            same = False
        if not same:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with files.replacing(said) as temporary:
                temporary.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    # Nobody looks before worker 1 has tidied up.
    _agree(strategy, 0, name)
    latest = tf.train.latest_checkpoint(folder)
    if latest:
        checkpoint.restore(latest).assert_existing_objects_matched()
    _agree(strategy, int(epoch.numpy()), name)
    if epoch.numpy() and not worker.rank:
        print(f"going on after epoch {int(epoch.numpy())} from {files.show(folder)}", flush=True)

    def save():
        with tempfile.TemporaryDirectory() as thrown_away:
            own = thrown_away if worker.rank else folder
            tf.train.CheckpointManager(checkpoint, own, max_to_keep=1).save()

    return save


def _agree(strategy, number, name):
    """Wait for all workers, and raise `Failure` when their numbers are not the same."""
    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant([number, number**2], tf.int64)
    )
    n = strategy.num_replicas_in_sync
    total, squares = strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None).numpy()
    if n * squares != total**2:
        raise Failure(
            f"the workers do not see the same checkpoint in {files.show(checkpoints_path(name))}: "
            "the folder of the weights has to be one that they share"
        )


def remove_checkpoints(name):
    """Remove a model's checkpoints, once its weights are written."""
    shutil.rmtree(checkpoints_path(name), ignore_errors=True)
