"""Noise of at most epsilon a pixel by many steps, for `mnist_fast_gradient.py --steps`."""

from method2_fgsm.pgd import pgd
from method2_fgsm.smallest_eps import smallest_eps


def many_steps(model, x, y, *, eps, steps, targeted=False, batch_size=1000):
    """What so many steps make of the images within eps: float32 like x.

    Away from the labels y, by projected sign steps (pgd.py).  Targeted, y are the labels to
    reach, by the steps of smallest_eps.py: the noise is then as small as they find it, and none
    where the target is out of reach.
    The arguments are those of `fgsm.fgsm`; steps: at least 1.  Raises ValueError as they do.
    """
    if not targeted:
        return pgd(model, x, y, eps, steps=steps, batch_size=batch_size)
    if eps == 0:
        return x.copy()
    return smallest_eps(model, x, y, steps=steps, max_eps=eps, batch_size=batch_size)[1]
