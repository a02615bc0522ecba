"""The sign of the gradient as a picture, for the figure after Goodfellow et al. 2015, figure 1."""

from common.networks import mnist
from method2_fgsm import fgsm


def sign_pictures(model, x, y, *, targeted=False):
    """The sign step's direction for photographs, and what the network takes it for.

    x: float32 (n, h, w, 3) in [0, 1].  y: integers (n,), the labels to leave, or to reach.
    Returns a dict: signs, float32 like x, of -1, 0 and 1; and label and confidence of the sign as
    a picture (-1 black, 0 grey, 1 white in each colour): y_preds_sign, confidences_sign, (n,).
    """
    signs = fgsm.gradient_signs(model, x, y)
    signs = -signs if targeted else signs
    logits = mnist.predict(model, (signs + 1) / 2)
    confidences = mnist.softmax(logits).max(axis=1)
    return {"signs": signs, "y_preds_sign": logits.argmax(axis=1), "confidences_sign": confidences}
