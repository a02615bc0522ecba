"""The smallest noise in both norms, against adv-lib's attacks and the best of all of them.

    pip install -r tests/benchmarks/requirements.txt
    pip install --no-deps adv-lib==0.2.8
    python tests/benchmarks/smallest_vs_libraries.py
    python tests/benchmarks/smallest_vs_libraries.py --model cnn --norm linf
    python tests/benchmarks/smallest_vs_libraries.py --model strided_certified --norm l2

adv-lib is the library of the authors of several of these attacks: DDN and ALMA (Rony et al. 2019
and 2021), FMN (Pintor et al. 2021), primal-dual descent PDGD and PDPGD (Matyasko & Chau 2021).
All get the same digits of the test set, drawn with a seed of their own, and the same targets.
The models' weights are copied into PyTorch, and what each attack finds is judged by ours.  `best`
is the smallest that any of theirs found for each digit; `missed` are the digits whose target one of
theirs reaches and this one not; over the others `above best` compares the mean with that of the
best, and `worst` is the digit furthest above it.  Seconds are of one call,
ours of the second, when all is compiled; PyTorch and TensorFlow have the same number of threads.

reads   common/mnist.npz, common/weights/{model}.weights.h5
writes  nothing
"""

import time

import numpy as np
from torch_models import adv_lib_attacks, in_torch

from common import command, data
from common.networks import mnist

COUNT = {"softmax": 100, "mlp": 100}  # of the other networks 40
SEED = 15  # neither that of the sample nor those of the scripts


def problem(name, count, seed):
    """The model, and `count` test digits that it classifies correctly, with random targets."""
    rng = np.random.default_rng(seed)
    x, y = data.load("test")
    model = mnist.load(name)
    order = rng.permutation(len(x))[: 2 * count + 20]
    x, y = x[order], y[order]
    right = np.flatnonzero(mnist.classify(model, x) == y)[:count]
    x, y = x[right], y[right]
    return model, x, (y + rng.integers(1, 10, len(y))) % 10


def sizes(noise, norm):
    flat = noise.reshape(len(noise), -1)
    return np.linalg.norm(flat, axis=1) if norm == "l2" else np.abs(flat).max(axis=1)


def theirs(norm, network, carlini):
    """Their attacks by name: functions of tensors (x, y_target)."""
    import torch

    library = adv_lib_attacks()

    def pgd(x, t):
        """200 sign steps for each of ten bisections of epsilon."""
        low, high = torch.zeros(len(x)), torch.ones(len(x))
        best = x.clone()
        for _ in range(10):
            eps = ((low + high) / 2)[:, None, None, None]
            x_adv = x.clone()
            for _ in range(200):
                x_adv.requires_grad_()
                loss = torch.nn.functional.cross_entropy(network(x_adv), t, reduction="sum")
                step = 2.5 * eps / 200 * torch.autograd.grad(loss, x_adv)[0].sign()
                moved = (x_adv.detach() - step).clamp(x - eps, x + eps)
                x_adv = moved.clamp(0, 1)
            hit = network(x_adv).argmax(1) == t
            best[hit] = x_adv[hit]
            low = torch.where(hit, low, eps.flatten())
            high = torch.where(hit, eps.flatten(), high)
        return best

    if norm == "linf":
        return {
            "PGD-200, bisected": pgd,
            "FMN-1000": lambda x, t: library.fmn(
                network, x, t, norm=np.inf, steps=1000, targeted=True
            ),
            "PDPGD-500": lambda x, t: library.pdpgd(
                network, x, t, norm=np.inf, num_steps=500, targeted=True
            ),
        }
    attacks = {
        "DDN-1000": lambda x, t: library.ddn(network, x, t, steps=1000, targeted=True),
        "FMN-1000": lambda x, t: library.fmn(network, x, t, norm=2, steps=1000, targeted=True),
        "ALMA-1000": lambda x, t: library.alma(
            network, x, t, distance="l2", num_steps=1000, targeted=True
        ),
        "PDPGD-500": lambda x, t: library.pdpgd(
            network, x, t, norm=2, num_steps=500, targeted=True
        ),
        "PDGD-1000": lambda x, t: library.pdgd(network, x, t, num_steps=1000, targeted=True),
    }
    if carlini:
        attacks["Carlini-Wagner 9 x 1000"] = lambda x, t: library.carlini_wagner_l2(
            network, x, t, targeted=True, binary_search_steps=9, max_iterations=1000
        )
    return attacks


def ours(norm, model):
    """Our searches by name: functions of arrays (x, y_target)."""
    from method1_noise_optimization import attack
    from method2_fgsm.smallest_eps import smallest_eps

    if norm == "linf":
        return {
            "ours, one step": lambda x, t: smallest_eps(model, x, t)[1],
            "ours, 500 steps": lambda x, t: smallest_eps(model, x, t, steps=500)[1],
        }

    def minimal(starts):
        return lambda x, t: x + attack.find_noise(model, x, t, method="minimal", starts=starts)

    return {f"ours, minimal, starts={starts}": minimal(starts) for starts in (1, 4, attack.STARTS)}


def exact(norm, model, x, t):
    """The exact optimum for softmax regression: sizes (n,)."""
    if norm == "l2":
        from logreg_softmax.exact import smallest_noise

        return smallest_noise(*model.get_weights(), x, t)[1]
    from logreg_softmax.linear_programme import smallest_linf

    return smallest_linf(*model.get_weights(), x, t)[0]


def compare(name, norm, args):
    import torch

    model, x, t = problem(name, args.count or COUNT.get(name, 40), args.seed)
    network = in_torch(model, x)
    tensors = torch.tensor(x[:, np.newaxis]), torch.tensor(t)
    found, seconds = {}, {}
    for who, attack in theirs(norm, network, args.carlini_wagner).items():
        start = time.perf_counter()
        x_adv = attack(*tensors).detach().numpy()[:, 0]
        seconds[who] = time.perf_counter() - start
        found[who] = x_adv
    others = list(found)
    for who, attack in ours(norm, model).items():
        attack(x, t)
        start = time.perf_counter()
        found[who] = attack(x, t)
        seconds[who] = time.perf_counter() - start

    size = {}
    for who, x_adv in found.items():
        hit = mnist.classify(model, np.clip(x_adv, 0, 1)) == t
        size[who] = np.where(hit, sizes(x_adv - x, norm), np.inf)
    best = np.min([size[who] for who in others], axis=0)
    title = f"{mnist.title(name)}, {norm}, {len(x)} digits"
    print(f"\n{title:36}reached    mean   above best    worst   missed   seconds")
    if name == "softmax":
        optimum = exact(norm, model, x, t)
        above = optimum.mean() / best.mean() - 1
        print(f"{'exact optimum':36}{1:7.0%}{optimum.mean():9.5f}{above:12.2%}")
    reached = np.isfinite(best)
    print(f"{'best of theirs':36}{reached.mean():7.0%}{best[reached].mean():9.5f}")
    for who, values in size.items():
        hit = np.isfinite(values)
        both = hit & reached
        if not both.any():
            print(f"{who:36}{hit.mean():7.0%}{'':39}{reached.sum():9}{seconds[who]:10.1f}")
            continue
        print(
            f"{who:36}{hit.mean():7.0%}{values[hit].mean():9.5f}"
            f"{values[both].mean() / best[both].mean() - 1:12.2%}"
            f"{(values[both] / best[both]).max() - 1:9.1%}{(reached & ~hit).sum():9}"
            f"{seconds[who]:10.1f}",
            flush=True,
        )


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--model", type=mnist.argument, nargs="+", default=mnist.NAMES, help="which classifiers"
    )
    parser.add_argument("--norm", choices=("l2", "linf", "both"), default="both")
    parser.add_argument("--count", type=command.positive_int, help="digits (default: 100 or 40)")
    parser.add_argument(
        "--carlini-wagner", action="store_true", help="theirs too, 9 x 1000 steps (minutes)"
    )
    parser.add_argument("--seed", type=command.seed, default=SEED, help="of digits and targets")
    args = parser.parse_args(argv)
    for norm in ("l2", "linf") if args.norm == "both" else (args.norm,):
        for name in args.model:
            compare(name, norm, args)
    return []


if __name__ == "__main__":
    command.run(main)
