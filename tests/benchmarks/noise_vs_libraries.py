"""Method 1 against Foolbox, ART, CleverHans and the loop over single images, in one process.

    pip install -r tests/benchmarks/requirements.txt
    python tests/benchmarks/noise_vs_libraries.py                 the smallest noise
    python tests/benchmarks/noise_vs_libraries.py --part sgd      gradient descent, PyTorch's loop
    python tests/benchmarks/noise_vs_libraries.py --part stream   60,000 digits: time and memory

Smallest noise: the same weights, digits (of the sample, classified correctly) and random targets
for all.  Foolbox's decoupled direction and norm takes all of them in 100 steps; the attacks of
Carlini & Wagner (9 x 1000 steps) only as many of the first as --slow says for each model, since
they take minutes to hours, ART's and CleverHans's a handful; so each row is compared with ours
on the same digits.  `seconds` are of the second call, when all is compiled; `first call` counts
tracing, too.

Gradient descent: all digits of the sample with L2 regularisation at learning rate 0.008, against
a PyTorch loop that optimises one image after the other by the same rule (the MLP's own weights).

reads   common/mnist.npz, common/weights/{softmax,mlp,cnn}.weights.h5, common/5k_samples.npz
writes  nothing
"""

import resource
import time

import numpy as np

from common import command, data
from common.networks import mnist

# How many digits each of the slow attacks gets: Foolbox's, ART's, CleverHans's.
SLOW = {"softmax": (500, 3, 20), "mlp": (500, 3, 20), "cnn": (50, 1, 5)}


def ours(model, method):
    from method1_noise_optimization import attack

    return lambda x, y, t: x + attack.find_noise(model, x, t, method=method)


def foolbox_attack(model, make):
    """A Foolbox attack by name and settings, as a function of (x, y, y_target)."""
    # Foolbox 3.3.4 calls a function that NumPy 2 no longer has.
    setattr(np, "find_common_type", lambda arrays, scalars: np.result_type(*arrays, *scalars))  # noqa: B010
    import foolbox
    import tensorflow as tf

    wrapped = foolbox.TensorFlowModel(model, bounds=(0, 1))

    def run(x, y, t):
        goal = foolbox.criteria.TargetedMisclassification(tf.constant(t))
        return make(foolbox)(wrapped, tf.constant(x), goal, epsilons=None)[1].numpy()

    return run


def art_attack(model):
    import tensorflow as tf
    from art.attacks.evasion import CarliniL2Method
    from art.estimators.classification import TensorFlowV2Classifier

    classifier = TensorFlowV2Classifier(
        model,
        nb_classes=10,
        input_shape=(28, 28),
        loss_object=tf.keras.losses.CategoricalCrossentropy(from_logits=True),
        clip_values=(0, 1),
    )
    attack = CarliniL2Method(
        classifier,
        targeted=True,
        binary_search_steps=9,
        max_iter=1000,
        batch_size=100,
        verbose=False,
    )
    return lambda x, y, t: attack.generate(x, np.eye(10, dtype=np.float32)[t])


def cleverhans_attack(model):
    import keras
    import tensorflow as tf
    from cleverhans.tf2.attacks.carlini_wagner_l2 import CarliniWagnerL2

    class Adam:
        """Keras 3's Adam as CleverHans 4.0 expects it: `variables` is called, then set to zero."""

        def __init__(self, learning_rate):
            self.adam = keras.optimizers.Adam(learning_rate)

        def variables(self):
            rate = self.adam.learning_rate
            return [variable for variable in self.adam.variables if variable is not rate]

        def apply_gradients(self, pairs):
            self.adam.apply_gradients(pairs)

    def run(x, y, t):
        attack = CarliniWagnerL2(
            lambda images: model(images[..., 0]),  # it takes images with channels only
            y=tf.constant(t),
            targeted=True,
            batch_size=len(x),
            clip_min=0.0,
            clip_max=1.0,
            binary_search_steps=9,
            max_iterations=1000,
        )
        attack.optimizer = Adam(attack.learning_rate)
        return np.asarray(attack.attack(tf.constant(x[..., np.newaxis])))[..., 0]

    return run


def measure(name, model, x, y, t, *, reference=None, twice=False):
    """One row of the table: |r|_2, success and seconds, beside ours on the same digits."""
    from method1_noise_optimization.attack import sizes

    seconds = []
    for _ in range(2 if twice else 1):
        start = time.perf_counter()
        x_adv = model[1](x, y, t)
        seconds.append(time.perf_counter() - start)
    hit = mnist.classify(model[0], np.clip(x_adv, 0, 1)) == t
    size = sizes(x_adv - x)
    row = f"{name:28}{len(x):7d}{hit.mean():9.1%}{size[hit].mean():10.4f}"
    row += f"{reference[: len(x)].mean():14.4f}" if reference is not None else " " * 14
    row += f"{seconds[-1]:10.2f}"
    print(row + (f"{seconds[0]:12.2f}" if twice else ""), flush=True)
    return size, seconds[-1]


def smallest_noise(name, count, seed, slow):
    model, x, y, t = problem(name, count, seed)
    print(
        f"\n{mnist.TITLES[name]:28} digits  success   |r|_2   ours on those   seconds  first call"
    )
    if name == "softmax":
        from logreg_softmax import exact

        def optimum(x, y, t):
            return x + exact.smallest_noise(*model.get_weights(), x, t, lead=1e-4)[0]

        measure("exact optimum", (model, optimum), x, y, t)
    minimal, _ = measure("ours, minimal", (model, ours(model, "minimal")), x, y, t, twice=True)
    rest = {"reference": minimal}
    measure("ours, sgd", (model, ours(model, "sgd")), x, y, t, twice=True, **rest)
    if name != "cnn":
        measure("ours, lbfgs", (model, ours(model, "lbfgs")), x, y, t, **rest)
    ddn = foolbox_attack(model, lambda foolbox: foolbox.attacks.DDNAttack(steps=100))
    measure("Foolbox DDN, 100 steps", (model, ddn), x, y, t, twice=True, **rest)
    carlini = foolbox_attack(
        model,
        lambda foolbox: foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=9, steps=1000),
    )
    contestants = (
        ("Foolbox Carlini-Wagner", carlini),
        ("ART Carlini-Wagner", art_attack(model)),
        ("CleverHans Carlini-Wagner", cleverhans_attack(model)),
    )
    for (who, attack), most in zip(contestants, slow or SLOW[name], strict=True):
        if most:
            measure(who, (model, attack), x[:most], y[:most], t[:most], **rest)


def gradient_descent(seed, loop):
    """Images a second: ours on all digits, PyTorch's loop on the first `loop` of them."""
    import torch

    model, x, y, t = problem("mlp", 5000, seed)
    weights = [torch.tensor(array) for array in model.get_weights()]
    # One image is too little work for two threads: more only make it slower.
    torch.set_num_threads(1)

    def logits(image):
        hidden = torch.relu(image.reshape(1, -1) @ weights[0] + weights[1])
        hidden = torch.relu(hidden @ weights[2] + weights[3])
        return hidden @ weights[4] + weights[5]

    def one(image, target):
        image, target = torch.tensor(image), torch.tensor([int(target)])
        r = torch.zeros_like(image, requires_grad=True)
        optimizer = torch.optim.SGD([r], lr=0.008)
        for _ in range(1000):
            z = logits(torch.clamp(image + r, 0, 1))
            if z.argmax() == target:
                break
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(z, target) + (r**2).mean()
            loss.backward()
            optimizer.step()
        return torch.clamp(image + r, 0, 1).detach().numpy()

    attack = ours(model, "sgd")
    attack(x[:1000], y[:1000], t[:1000])  # compiles
    print("\nMLP, sgd with L2         digits   |r|_2   images a second")
    rates = {}
    for _ in range(3):
        for who, run, n in (
            ("ours, all at once", lambda n: attack(x[:n], y[:n], t[:n]), len(x)),
            (
                "PyTorch, one at a time",
                lambda n: np.stack([one(*pair) for pair in zip(x[:n], t[:n], strict=True)]),
                loop,
            ),
        ):
            start = time.perf_counter()
            x_adv = run(n)
            rates.setdefault(who, []).append(n / (time.perf_counter() - start))
            size = np.linalg.norm((x_adv - x[:n]).reshape(n, -1), axis=1).mean()
            print(f"{who:24}{n:7d}{size:8.4f}{rates[who][-1]:14.0f}", flush=True)
    ratios = np.array(rates["ours, all at once"]) / np.array(rates["PyTorch, one at a time"])
    print(f"ours is faster by a factor of {np.median(ratios):.1f} (median of three turns)")


def stream(seed):
    """Time and peak memory against the number of digits."""
    x, y = data.load("train")
    model = mnist.load("mlp")
    t = (y + np.random.default_rng(seed).integers(1, 10, len(y))) % 10
    print("\nMLP           digits   seconds   ms a digit   peak memory above the start (MB)")
    for method in ("sgd", "minimal"):
        attack = ours(model, method)
        attack(x[:1000], y[:1000], t[:1000])
        for n in (5000, 15000, 60000):
            before = peak()
            start = time.perf_counter()
            attack(x[:n], y[:n], t[:n])
            seconds = time.perf_counter() - start
            print(
                f"{method:10}{n:10d}{seconds:10.1f}{1000 * seconds / n:13.3f}"
                f"{peak() - before:12.0f}, of it {3 * x[:n].nbytes / 2**20:.0f} for three arrays",
                flush=True,
            )


def peak():
    """The most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def problem(name, count, seed):
    """The model, and `count` digits that it classifies correctly, with random targets."""
    x, y, _ = data.load_samples()
    model = mnist.load(name)
    right = np.flatnonzero(mnist.classify(model, x) == y)[:count]
    x, y = x[right], y[right]
    return model, x, y, (y + np.random.default_rng(seed).integers(1, 10, len(y))) % 10


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--part", choices=("noise", "sgd", "stream"), default="noise", help="what to measure"
    )
    parser.add_argument(
        "--model", choices=(*mnist.NAMES, "all"), default="all", help="of part noise"
    )
    parser.add_argument("--count", type=command.positive_int, default=500, help="digits")
    parser.add_argument(
        "--slow",
        type=int,
        nargs=3,
        metavar=("FOOLBOX", "ART", "CLEVERHANS"),
        help="digits for the three Carlini-Wagner attacks (default: 500 3 20; CNN 50 1 5)",
    )
    parser.add_argument(
        "--loop", type=command.positive_int, default=200, help="digits for PyTorch's loop"
    )
    parser.add_argument("--seed", type=command.seed, default=0, help="of the random targets")
    args = parser.parse_args(argv)
    if args.part == "sgd":
        gradient_descent(args.seed, args.loop)
    elif args.part == "stream":
        stream(args.seed)
    else:
        for name in mnist.NAMES if args.model == "all" else (args.model,):
            smallest_noise(name, args.count, args.seed, args.slow)
    return []


if __name__ == "__main__":
    command.run(main)
