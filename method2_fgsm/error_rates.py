"""Error rates under the fast gradient sign, for one epsilon after the other."""

import numpy as np

from common.networks import mnist
from method2_fgsm.fgsm import gradient_signs


def error_rates(model, x, y, eps, *, source=None):
    """Error rate and mean confidence in the wrong label at each eps: float64 (2, k).

    Untargeted, x_adv = clip(x + eps * sign(∇ₓ J(x, y))).  The sign does not depend on eps, so it
    is taken once.  x: float32 (n, 28, 28) in [0, 1].  y: integers (n,).  eps: (k,) in pixel
    units.  source: the model whose gradient it is, if not `model` itself; then the errors are
    those that transfer.
    """
    sign = gradient_signs(model if source is None else source, x, y)
    return np.array(
        [
            mnist.wrong_label_confidence(mnist.predict(model, np.clip(x + e * sign, 0, 1)), y)
            for e in eps
        ]
    ).T
