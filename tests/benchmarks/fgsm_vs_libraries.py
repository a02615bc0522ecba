"""Time our FGSM against five others: same model, same digits, one process.

    pip install -r tests/benchmarks/requirements.txt
    pip install --no-deps torchattacks==3.5.1
    python tests/benchmarks/fgsm_vs_libraries.py

CleverHans, Foolbox and ART attack the Keras model; torchattacks and a bare loop in PyTorch attack
the same weights there.

All 10,000 test digits in batches of 1,000, untargeted, epsilon 0.25, NumPy arrays in and NumPy
arrays out.  The libraries take turns, round after round, so that a slow moment of the machine
hits them all; the table gives the median of each one's time over ours of the same round.  It
also gives each one's error rate, which is lower where a library takes the gradient of a cross
entropy that has rounded to zero.

reads   common/mnist.npz, common/weights/{softmax,mlp,cnn}.weights.h5
writes  nothing
"""

import time

import numpy as np
from torch_models import in_torch

from common import command, data
from common.networks import mnist

EPS = 0.25
BATCH = 1000


def attacks(model):
    """name: a function of (x, y), a batch each, that returns adversarial images as NumPy."""
    import foolbox
    import tensorflow as tf
    import torch
    import torchattacks
    from art.attacks.evasion import FastGradientMethod
    from art.estimators.classification import TensorFlowV2Classifier
    from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method

    from method2_fgsm import fgsm

    foolbox_model = foolbox.TensorFlowModel(model, bounds=(0, 1))
    foolbox_attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    art_attack = FastGradientMethod(
        TensorFlowV2Classifier(
            model,
            nb_classes=10,
            input_shape=(28, 28),
            loss_object=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            clip_values=(0, 1),
        ),
        eps=EPS,
        batch_size=BATCH,
    )

    network = in_torch(model, data.load("test")[0][:100])
    torch_attack = torchattacks.FGSM(network, eps=EPS)

    def bare_torch(x, y):
        x, y = torch.tensor(x[:, np.newaxis], requires_grad=True), torch.tensor(y)
        loss = torch.nn.functional.cross_entropy(network(x), y)
        gradient = torch.autograd.grad(loss, x)[0]
        return (x.detach() + EPS * gradient.sign()).clamp(0, 1).numpy()[:, 0]

    @tf.function
    def forward(x):
        return model(x, training=False)

    @tf.function
    def bare(x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=False))
        return tf.clip_by_value(x + EPS * tf.sign(tape.gradient(loss, x)), 0, 1)

    return {
        "ours": lambda x, y: fgsm.fgsm(model, x, y, EPS),
        "forward pass alone": lambda x, y: forward(tf.constant(x)).numpy(),
        "bare compiled formula": lambda x, y: bare(tf.constant(x), tf.constant(y)).numpy(),
        "CleverHans": lambda x, y: fast_gradient_method(
            model, tf.constant(x), EPS, np.inf, clip_min=0, clip_max=1, y=tf.constant(y)
        ).numpy(),
        "Foolbox": lambda x, y: foolbox_attack(
            foolbox_model, tf.constant(x), tf.constant(y), epsilons=EPS
        )[1].numpy(),
        "torchattacks": lambda x, y: torch_attack(
            torch.tensor(x[:, np.newaxis]), torch.tensor(y)
        ).numpy()[:, 0],
        "bare PyTorch": bare_torch,
        "ART": lambda x, y: art_attack.generate(x, y),
    }


def timed(attack, x, y):
    """Seconds for all digits, a batch at a time, and the images."""
    out = []
    start = time.perf_counter()
    for first in range(0, len(x), BATCH):
        out.append(attack(x[first : first + BATCH], y[first : first + BATCH]))
    return time.perf_counter() - start, np.concatenate(out)


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--rounds", type=command.positive_int, default=7, help="turns of each")
    args = parser.parse_args(argv)
    x, y = data.load("test")
    for name in mnist.NAMES:
        model = mnist.load(name)
        contestants = attacks(model)
        found = {}
        for who, attack in contestants.items():  # the warm-up compiles
            images = timed(attack, x, y)[1]
            if images.shape == x.shape:
                error = (mnist.classify(model, images) != y).mean()
                found[who] = f"{error:10.2%}"
        seconds = {who: [] for who in contestants}
        for _ in range(args.rounds):
            for who, attack in contestants.items():
                seconds[who].append(timed(attack, x, y)[0])
        print(f"\n{mnist.TITLES[name]:24}median s   time / ours   error rate")
        for who, times in seconds.items():
            ratio = np.median(np.array(times) / np.array(seconds["ours"]))
            print(f"{who:24}{np.median(times):8.4f}{ratio:14.2f}  {found.get(who, '')}")
    return []


if __name__ == "__main__":
    command.run(main)
