"""Count how often noise that shows nothing is taken for a digit ("rubbish class examples").

    python method2_fgsm/rubbish.py

Gaussian noise N(0, 1), as in Goodfellow et al. (2015, appendix), and as valid images, N(0.5, 0.25)
clipped to [0, 1]: how often a network with weights gives some digit over 50 %, and how sure it is.

reads   common/weights/{model}.weights.h5, {model}_adversarial.weights.h5, {model}_robust.weights.h5
writes  nothing
"""

import numpy as np
from tqdm import tqdm

from common import command, files
from common.command import Failure
from common.networks import mnist

THRESHOLD = 0.5  # of the confidence
# Goodfellow et al. (2015), appendix on rubbish class examples.
PUBLISHED = (
    ("softmax regression", 0.598, 0.708),
    ("maxout, softmax layer", 0.9835, 0.928),
    ("maxout, logistic units", 0.68, 0.879),
)


def noise_images(count, seed):
    """Gaussian noise as the paper has it, and as valid images: two float32 (count, 28, 28)."""
    z = np.random.default_rng(seed).standard_normal((count, 28, 28), np.float32)
    return z, np.clip(0.5 + 0.25 * z, 0, 1)


def taken_for_a_digit(logits):
    """The share of images with a confidence above 50 %, and the mean confidence of those."""
    confidence = mnist.softmax(logits.astype(np.float64)).max(axis=1)
    error = confidence > THRESHOLD
    return error.mean(), confidence[error].mean() if error.any() else np.nan


def main(argv=None):
    parser = command.Parser(__doc__)
    command.add_count(parser, "--count", "how many images of noise", 10000)
    command.add_seed(parser, "of the noise")
    args = parser.parse_args(argv)

    kinds = "", mnist.SUFFIXES["sign"], mnist.SUFFIXES["pgd"]
    names = [f"{name}{kind}" for name in mnist.NAMES for kind in kinds]
    names = [name for name in names if mnist.weights_path(name).exists()]
    if not names:
        raise Failure(
            f"no weights in {files.show(files.WEIGHTS)}: "
            f"run `{mnist.train_command(mnist.NAMES[-1])}` first"
        )
    kinds_of_noise = noise_images(args.count, args.seed)

    print(f"{args.count} images of Gaussian noise: called a digit with over 50 % confidence")
    rows = []
    for name in tqdm(names, disable=None, unit="model"):
        rows.append([mnist.title(name)])
        for images in kinds_of_noise:
            shares = taken_for_a_digit(mnist.predict(mnist.load(name), images))
            rows[-1] += ["-" if np.isnan(share) else f"{share:.1%}" for share in shares]
    rows += [(f"published: {name}", *map("{:.1%}".format, shares)) for name, *shares in PUBLISHED]
    print(command.table(("", "N(0, 1)", "confidence", "valid images", "confidence"), rows))
    return []


if __name__ == "__main__":
    command.run(main)
