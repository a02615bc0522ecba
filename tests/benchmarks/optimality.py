"""The nearest wrong answer, by our attacks and adv-lib's, scored as AttackBench scores them.

    pip install -r tests/benchmarks/requirements.txt
    pip install --no-deps adv-lib==0.2.8
    python tests/benchmarks/optimality.py
    python tests/benchmarks/optimality.py --model cnn --norm linf --count 50
    python tests/benchmarks/optimality.py --norm l0 --count 200
    python tests/benchmarks/optimality.py --model cnn_robust --count 100 --attacks DDN ALMA APGD

The protocol of AttackBench (Cinà et al. 2025, arXiv:2404.19460): the first COUNT test digits, no
more than 2,000 passes an image, forward and backward counted apart, and the best iterate counts,
whatever an attack returns.  d are the distances of an attack, zero where the digit is misclassified
as it is, infinite where it fails; d* is the best of all attacks for each digit, and ε₀ = max d*:

    local optimality = 1 - (mean min(d, ε₀) - mean d*) / (clean accuracy · ε₀ - mean d*)

That is the paper's integral.  Its authors' code scores higher where no digit is misclassified as it
is, and agrees where some are.

Passes are counted inside the network, where they happen, and an image that is left out of a batch
does not count.  The best iterates of theirs are taken from the passes with the whole batch; SDF,
trust region and FAB leave out images, and are judged by what they return.  Theirs are judged by the
network's copy in PyTorch, ours by our own.  Seconds are of one call, ours of the second.  For
softmax regression the exact optimum, the nearest of nine programmes, stands beside them.

reads   common/mnist.npz, common/weights/*.weights.h5
writes  nothing
"""

import time

import keras
import numpy as np
import tensorflow as tf
import torch
from torch_models import adv_lib_attacks, in_torch

from common import command, data
from common.networks import mnist
from method1_noise_optimization.attack import find_noise
from method2_fgsm.smallest_eps import smallest_eps

BUDGET = 2000
ORDER = {"l2": 2, "linf": np.inf, "l0": 0}


def sizes(noise, norm):
    return np.linalg.norm(noise.reshape(len(noise), -1), ord=ORDER[norm], axis=1)


class Passes(keras.layers.Layer):
    """Hands its images on, and counts those that come by, and the gradients that come back."""

    def build(self, _):
        self.count = tf.Variable([0, 0])

    def call(self, x):
        @tf.custom_gradient
        def counted(x):
            def gradient(upstream):
                self.count.assign_add([0, tf.shape(upstream)[0]])
                return upstream

            return tf.identity(x), gradient

        self.count.assign_add([tf.shape(x)[0], 0])
        return counted(x)


class _Counted(torch.autograd.Function):
    @staticmethod
    def forward(context, x, count):
        context.count = count
        count[0] += len(x)
        return x.view_as(x)

    @staticmethod
    def backward(context, upstream):
        context.count[1] += len(upstream)
        return upstream, None


class Watched(torch.nn.Module):
    """A network that counts as `Passes` does, and keeps the nearest wrong answer it has given."""

    def __init__(self, network, x, y, norm):
        super().__init__()
        self.network, self.x, self.y, self.norm = network, x, y, ORDER[norm]
        self.count, self.best = [0, 0], torch.full((len(x),), torch.inf)

    def forward(self, x):
        logits = self.network(_Counted.apply(x, self.count))
        if x.shape == self.x.shape and sum(self.count) <= BUDGET * len(x):
            self.look(x.detach(), logits.detach())
        return logits

    def look(self, x, logits):
        wrong = (
            (logits.argmax(1) != self.y) & (x >= 0).flatten(1).all(1) & (x <= 1).flatten(1).all(1)
        )
        distance = torch.linalg.vector_norm((x - self.x).flatten(1), ord=self.norm, dim=1)
        self.best = torch.where(wrong, torch.minimum(distance, self.best), self.best)


def theirs(norm):
    """Their attacks by name: functions of (network, x, y)."""
    library, p = adv_lib_attacks(), ORDER[norm]
    if norm == "l0":
        return {
            "sigma-zero": lambda n, x, y: library.sigma_zero(n, x, y, num_steps=1000),
            "VFGA": lambda n, x, y: library.vfga(n, x, y, targeted=False),
            "FMN": lambda n, x, y: library.fmn(n, x, y, norm=0, steps=1000),
        }
    attacks = {
        "FMN": lambda n, x, y: library.fmn(n, x, y, norm=p, steps=1000),
        "PDPGD": lambda n, x, y: library.pdpgd(n, x, y, norm=p, num_steps=1000),
        "FAB": lambda n, x, y: library.fab(n, x, y, norm=p, n_iter=BUDGET // 11),
        "trust region": lambda n, x, y: library.tr(n, x, y, iter=1000, adaptive=True, p=p),
    }
    if norm == "l2":
        return attacks | {
            "DDN": lambda n, x, y: library.ddn(n, x, y, steps=1000, levels=None),
            "ALMA": lambda n, x, y: library.alma(n, x, y, distance="l2", num_steps=1000),
            "PDGD": lambda n, x, y: library.pdgd(n, x, y, num_steps=1000),
            "SuperDeepFool": lambda n, x, y: library.sdf(n, x, y),
        }
    from adv_lib.attacks.auto_pgd import minimal_apgd

    bisected = {"norm": p, "max_eps": 0.5, "binary_search_steps": 10}
    return attacks | {
        "APGD, bisected": lambda n, x, y: minimal_apgd(n, x, y, **bisected, n_iter=98),
        "targeted APGD, bisected": lambda n, x, y: minimal_apgd(
            n, x, y, **bisected, targeted_version=True, num_targets=9, n_iter=10
        ),
    }


def ours(norm):
    """Our searches by name: functions of (model, x, y)."""
    if norm == "linf":
        return {
            f"ours, {steps} steps": lambda model, x, y, steps=steps: smallest_eps(
                model, x, y, targeted=False, steps=steps
            )[1]
            for steps in (300, 750)
        }
    if norm == "l0":
        how = {"targeted": False, "method": "fewest"}
        return {"ours, fewest": lambda model, x, y: x + find_noise(model, x, y, **how)}
    settings = {"targeted": False, "method": "minimal"}
    return {
        f"ours, starts={starts}": lambda model, x, y, starts=starts: (
            x + find_noise(model, x, y, starts=starts, **settings)
        )
        for starts in (1, 4)
    }


def measure_theirs(attack, network, x, y, norm):
    """(distances, passes forward, backward, seconds) of one of their attacks."""
    tensors = torch.tensor(x[:, np.newaxis]), torch.tensor(y)
    watched = Watched(network, *tensors, norm)
    torch.manual_seed(0)
    start = time.perf_counter()
    x_adv = attack(watched, *(tensor.clone() for tensor in tensors)).detach()
    seconds = time.perf_counter() - start
    count = np.array(watched.count) / len(x)
    watched.look(x_adv, network(x_adv))
    return watched.best.numpy(), *count, seconds


def measure_ours(attack, model, x, y, norm):
    passes = Passes()
    counted = keras.Sequential([keras.Input(x.shape[1:]), passes, model])
    attack(counted, x, y)
    passes.count.assign([0, 0])
    start = time.perf_counter()
    x_adv = attack(counted, x, y)
    seconds = time.perf_counter() - start
    count = passes.count.numpy() / len(x)
    wrong = mnist.classify(model, np.clip(x_adv, 0, 1)) != y
    return np.where(wrong, sizes(x_adv - x, norm), np.inf), *count, seconds


def exact(model, x, y, norm):
    """The exact optimum of softmax regression: the nearest of nine programmes."""
    from logreg_softmax.exact import smallest_noise
    from logreg_softmax.fewest_pixels import fewest_pixels
    from logreg_softmax.linear_programme import smallest_linf

    programme = {"l2": lambda *p: smallest_noise(*p)[1], "linf": lambda *p: smallest_linf(*p)[0]}
    weights = model.get_weights()
    if norm == "l0":
        return fewest_pixels(*weights, x, y)
    return np.nanmin([programme[norm](*weights, x, (y + k) % 10) for k in range(1, 10)], axis=0)


def compare(name, norm, count, attacks):
    x, y = (part[:count] for part in data.load("test"))
    model = mnist.load(name)
    right = mnist.classify(model, x) == y
    x, y = x[right], y[right]
    network = in_torch(model, x)
    found = {
        who: measure_theirs(attack, network, x, y, norm)
        for who, attack in theirs(norm).items()
        if attacks is None or any(part in who for part in attacks)
    }
    found |= {who: measure_ours(attack, model, x, y, norm) for who, attack in ours(norm).items()}
    # Misclassified digits have the distance zero, and so add nothing to the sums.
    best = np.min([distance for distance, *_ in found.values()], axis=0)
    farthest, mean = best.max(), best.sum() / count
    if name == "softmax":
        found["exact optimum"] = exact(model, x, y, norm), 0, 0, 0

    print(f"\n{mnist.title(name)}, {norm}: {count} digits, {right.mean():.1%} right")
    print(f"{'':26}success   median      mean  optimality  worst   forward backward  seconds")
    success = np.isfinite(best).mean()
    print(f"{'best of all':26}{success:7.1%}{np.median(best):9.4f}{best.mean():10.5f}")
    for who, (distance, forward, backward, seconds) in found.items():
        hit = np.isfinite(distance)
        mean_hit = distance[hit].mean() if hit.any() else np.nan
        clipped = np.minimum(distance, farthest).sum() / count
        optimality = 1 - (clipped - mean) / (right.mean() * farthest - mean)
        print(
            f"{who:26}{hit.mean():7.1%}{np.median(distance):9.4f}{mean_hit:10.5f}"
            f"{optimality:12.4f}{(distance / best).max() - 1:7.1%}"
            f"{forward:10.0f}{backward:9.0f}{seconds:9.1f}",
            flush=True,
        )


def main(argv=None):
    parser = command.Parser(__doc__)
    mnist.add_model(parser, "mlp")
    parser.add_argument("--norm", choices=(*ORDER, "both"), default="both")
    command.add_count(parser, "--count", "test digits", 1000)
    help = "of theirs those with this in their names (default: all)"
    parser.add_argument("--attacks", nargs="+", metavar="NAME", help=help)
    args = parser.parse_args(argv)
    norms = ORDER if args.norm == "both" else (args.norm,)
    names = [who for norm in norms for who in theirs(norm)]
    for part in args.attacks or ():
        if not any(part in who for who in names):
            parser.error(f"--attacks {part}: no attack has this in its name ({', '.join(names)})")
    for norm in norms:
        compare(args.model, norm, args.count, args.attacks)
    return []


if __name__ == "__main__":
    command.run(main)
