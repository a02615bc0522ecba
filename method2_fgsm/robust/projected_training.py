"""Training on projected sign steps: a box and a learning rate that rise, and an eye on the
network, because the training can collapse (Wong, Rice & Kolter 2020, "Fast is better than free":
catastrophic overfitting), while its own accuracy climbs.  So after each epoch a longer attack is
tried on digits that it is not trained on, and the weights of the best epoch are those that stay.
"""

import keras
import numpy as np
import tensorflow as tf

from common import data
from common.networks import mnist, training
from method2_fgsm.pgd import pgd
from method2_fgsm.robust.adversarial_loss import AdversarialModel, cells, projected_loss, uniform

# Training digits that are held out, the last ones, and the attack on them after each epoch.
HELD_OUT = 1000
STEPS = 20
# The box that is trained on, beside the one that has to be withstood.
WIDER = 1.1
# Of the training, the share in which the box and the learning rate rise.
RISE = 0.4
# An epoch that leaves less than this share of the best one's accuracy is a collapse.
COLLAPSE = 0.5


def fit(name, attack, eps, steps, *, epochs, batch_size, learning_rate, seed):
    """Train a new model to withstand eps, and return it with the weights of its best epoch.

    attack: "pgd", so many `steps` from `cells` within a box that is a little wider than eps,
    because a network holds a little less than it was trained on.  The box, and the steps with it,
    grow from zero in a straight line, as the learning rate does, and stay, when it falls again: a
    network that meets all of it at once learns nothing for a while.  Or "random-start", one step
    of 1.25 eps within eps itself, all the time, as in the paper.  learning_rate: the peak.  The
    rest is that of `training.fit`.
    """
    x, y = data.load("train")
    rising = RISE * epochs * (len(x) - HELD_OUT) / batch_size
    x, y = x[-HELD_OUT:], y[-HELD_OUT:]
    box, step_size = WIDER * eps, 2.5 * WIDER * eps / steps
    callbacks = []

    def loss(model, x, y):
        if attack == "random-start":
            return projected_loss(model, x, y, eps, 1, 1.25 * eps, uniform)
        share = tf.minimum(tf.cast(model.optimizer.iterations, tf.float32) / rising, 1)
        return projected_loss(model, x, y, share * box, steps, share * step_size, cells)

    def trainer(model):
        def withstood():
            right = mnist.classify(model, pgd(model, x, y, eps, steps=STEPS)) == y
            words = f"{right.mean():.1%} of {len(x)} held-out digits withstand {STEPS} steps"
            return right.mean(), words

        callbacks.append(BestEpoch(model, withstood))
        return AdversarialModel(model, loss)

    return training.fit(
        name,
        lambda steps: keras.optimizers.Adam(RiseAndFall(learning_rate, steps)),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        rows=slice(-HELD_OUT),
        trainer=trainer,
        callbacks=callbacks,
    )


class RiseAndFall(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises in a straight line from zero to `peak`, and falls back to zero."""

    def __init__(self, peak, steps):
        self.peak, self.steps = peak, steps

    def __call__(self, step):
        done = keras.ops.cast(step, "float32") / self.steps
        return self.peak * keras.ops.minimum(done / RISE, (1 - done) / (1 - RISE))

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps}


class BestEpoch(keras.callbacks.Callback):
    """Leaves a network, `kept`, with the weights of the epoch after which most digits stood.

    stood() -> (share of the digits, what is printed of it), after each epoch.
    """

    def __init__(self, kept, stood):
        super().__init__()
        self.kept, self.stood, self.shares, self.weights = kept, stood, [], None

    def on_epoch_end(self, epoch, logs=None):
        share, words = self.stood()
        self.shares.append(share)
        if share == max(self.shares):
            self.weights = self.kept.get_weights()
        print(f"epoch {epoch + 1}: {words}", flush=True)

    def on_train_end(self, logs=None):
        self.kept.set_weights(self.weights)
        best = int(np.flatnonzero(self.shares == np.max(self.shares))[-1])
        if (worst := min(self.shares[best:])) < COLLAPSE * self.shares[best]:
            print(f"the training collapsed after epoch {best + 1}, to {worst:.1%}", flush=True)
        print(f"the weights of epoch {best + 1} are kept ({self.shares[best]:.1%})", flush=True)
