"""How much of the noise made for one network works on others.

Noise sizes are root mean squares over the pixels, `attack.distortions`, in pixel units.
"""

import numpy as np
from tqdm import tqdm

from common.networks import mnist
from method1_noise_optimization import attack
from method1_noise_optimization.attack import distortions


def amplified(x, noise, to, steps=40):
    """clip(x + s * noise) with s, for each image, such that the noise has the size `to` in the end.

    Clipping takes some of the noise away; the size grows with s all the same, so bisection finds
    it.  An image whose noise cannot grow so far gets what there is.
    """
    low, high = np.zeros(len(x)), np.ones(len(x))

    def moved(s):
        return np.clip(x + s[:, np.newaxis, np.newaxis].astype(np.float32) * noise, 0, 1)

    for _ in range(20):
        small = distortions(moved(high) - x) < to
        if not small.any():
            break
        high[small] *= 2
    for _ in range(steps):
        middle = (low + high) / 2
        small = distortions(moved(middle) - x) < to
        low, high = np.where(small, middle, low), np.where(small, high, middle)
    return moved(high)


def errors(networks, images, y):
    """Error rates (sources, networks): `images` is a list of (n, 28, 28), `y` (n,) the labels."""
    return np.array(
        [[(mnist.classify(model, x) != y).mean() for model in networks] for x in images]
    )


def minimal_noise(networks, x, y, seed):
    """The smallest noise found for each network, towards random targets: list of (n, 28, 28)."""
    targets = attack.random_targets(y, seed)
    return [
        attack.find_noise(model, x, targets, method="minimal")
        for model in tqdm(networks, disable=None, unit="network")
    ]


def noise_tables(networks, x, y, to, seed):
    """The two tables of minimal noise, as found and amplified, each with its control.

    Returns {"as found": …, "amplified": …} of (errors (networks + 1, networks), mean sizes
    (networks + 1,), errors (networks,)): the last row is Gaussian noise of the networks' mean
    size, and the last errors are those under Gaussian noise of that size that is not clipped.
    """
    noises = minimal_noise(networks, x, y, seed)
    gaussian = np.random.default_rng(seed + 1).standard_normal(x.shape, np.float32)
    found = np.mean([distortions(noise).mean() for noise in noises])
    tables = {}
    for kind, images in (
        ("as found", [np.clip(x + noise, 0, 1) for noise in noises]),
        ("amplified", [amplified(x, noise, to) for noise in noises]),
    ):
        scale = np.float32(found if kind == "as found" else to)
        images.append(amplified(x, gaussian, scale))
        sizes = np.array([distortions(image - x).mean() for image in images])
        unclipped = errors(networks, [x + scale * gaussian], y)[0]
        tables[kind] = errors(networks, images, y), sizes, unclipped
    return tables


def sign_table(networks, x, y, eps, seed):
    """The table of the fast gradient sign, its control, and how often wrong answers agree.

    Returns (errors, sizes) as in `noise_tables`, and agreement (networks, networks): of the
    digits made for one network that it and another both get wrong, the share that they take for
    the same digit.
    """
    from method2_fgsm import fgsm

    images = [fgsm.fgsm(model, x, y, eps) for model in networks]
    seen = np.array([[mnist.classify(model, image) for model in networks] for image in images])
    wrong = seen != y
    agreement = np.full((len(networks), len(networks)), np.nan)
    for source in range(len(networks)):
        for other in range(len(networks)):
            both = wrong[source, source] & wrong[source, other]
            if both.any():
                same = seen[source, source] == seen[source, other]
                agreement[source, other] = same[both].mean()
    gaussian = np.random.default_rng(seed + 1).standard_normal(x.shape, np.float32)
    mean_size = np.mean([distortions(image - x).mean() for image in images])
    images.append(amplified(x, gaussian, mean_size))
    sizes = np.array([distortions(image - x).mean() for image in images])
    return errors(networks, images, y), sizes, agreement
