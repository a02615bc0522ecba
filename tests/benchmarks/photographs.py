"""Method 1 on photographs beside DDN, its 8-bit files, and its speed and memory on a folder.

    python tests/benchmarks/photographs.py
    python tests/benchmarks/photographs.py --count 0        without the folder

The nine photographs of common/images become ostriches: by `minimal`, and by decoupling direction
and norm (Rony et al. 2019), written here from the paper's algorithm 1, without its rounding to 8
bits, and run by the same TensorFlow on the same network.  Both are compiled before the clock
starts.  The same for the nearest class, whichever that is.  Then the 8-bit files: the nearest, and
within one grey level.  Before all this COUNT photographs, made from the nine
(tests/benchmarks/memory.py), are attacked by attack_imnet.py: seconds from start to end, and the
largest resident memory.  Exit code 1 where it needs more than 2,500 MB.

reads   common/images, the installed weights
writes  nothing that stays
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from memory import LIMIT, measure, write_photographs

from common import command, files
from common.command import Failure
from common.networks import imagenet, mnist
from common.run import class_labels, photos
from method1_noise_optimization.attack import sizes

SCRIPT = files.ROOT / "method1_noise_optimization" / "attack_imnet.py"


def ddn(model, x, y, steps, targeted=True, gamma=0.05):
    """Rony et al. 2019, algorithm 1: x_adv float32 like x, x where no step hit."""
    import tensorflow as tf

    @tf.function
    def look(x_adv):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x_adv)
            logits = model(x_adv, training=False)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            loss = loss if targeted else -loss
        return (tf.argmax(logits, axis=1) == y) == targeted, tape.gradient(loss, x_adv)

    def norm(r):
        return np.maximum(sizes(r), 1e-12)[:, np.newaxis, np.newaxis, np.newaxis]

    look(tf.constant(x))  # compiled before the clock starts
    began = time.perf_counter()
    delta, radius = np.zeros_like(x), np.ones((len(x), 1, 1, 1))
    best, size = x.copy(), np.full(len(x), np.inf)
    for k in range(steps):
        hit, gradient = (part.numpy() for part in look(tf.constant(x + delta)))
        nearer = hit & (sizes(delta) < size)
        best[nearer], size[nearer] = (x + delta)[nearer], sizes(delta)[nearer]
        alpha = 0.01 + 0.99 * (1 + np.cos(np.pi * k / steps)) / 2
        delta = delta - alpha * gradient / norm(gradient)
        radius *= np.where(hit, 1 - gamma, 1 + gamma)[:, np.newaxis, np.newaxis, np.newaxis]
        delta = np.clip(x + radius * delta / norm(delta), 0, 1).astype(np.float32) - x
    return best, time.perf_counter() - began


def compare(model, pixels, target):
    from method1_noise_optimization import attack, grey_levels

    x, y_target = pixels / np.float32(255), np.full(len(pixels), target)
    print(f"{'':30}reached  mean |r|_2  changed  confidence  seconds")

    def line(name, x_adv, seconds, y=None):
        probability = mnist.softmax(model.predict_on_batch(x_adv))
        seen = probability.argmax(axis=1)
        reached = seen == target if y is None else seen != y
        changed = (np.abs(x_adv - x) > 1e-6).mean()
        print(
            f"{name:30}{reached.sum():2d} of {len(x)}{sizes((x_adv - x)[reached]).mean():12.4f}"
            f"{changed:9.1%}{probability.max(axis=1)[reached].mean():12.1%}{seconds:9.1f}",
            flush=True,
        )

    for steps in (100, 300):
        line(f"DDN, {steps} steps", *ddn(model, x, y_target, steps))
    attack.find_noise(model, x, y_target, method="minimal", max_steps=1)
    noise = None
    for steps in (60, 100, 300):
        began = time.perf_counter()
        found = attack.find_noise(model, x, y_target, method="minimal", max_steps=steps)
        line(f"minimal, {steps} steps", x + found, time.perf_counter() - began)
        noise = found if steps == 100 else noise
    y, untargeted = mnist.classify(model, x), {"targeted": False, "method": "minimal"}
    for steps in (100, 300):
        line(f"nearest: DDN, {steps} steps", *ddn(model, x, y, steps, targeted=False), y)
    attack.find_noise(model, x, y, max_steps=1, **untargeted)
    for steps in (20, 40, 60):
        began = time.perf_counter()
        found, gradients = attack.search(model, x, y, max_steps=steps, **untargeted)
        seconds = time.perf_counter() - began
        line(f"nearest: minimal, {gradients[0]} gradients", found, seconds, y)
    for name, options in (
        ("nearest 8-bit image", {"noise": noise}),
        ("one grey level", {"levels": 1}),
        ("one grey level, 50 % sure", {"levels": 1, "confidence": 0.5}),
    ):
        grey_levels.search(model, pixels, y_target, max_steps=1, **options)
        began = time.perf_counter()
        images, _ = grey_levels.search(model, pixels, y_target, **options)
        line(name, images / np.float32(255), time.perf_counter() - began)


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--count", type=int, default=200, help="photographs of the folder")
    args = parser.parse_args(argv)
    folder = files.COMMON / "images"
    paths = sorted(path.name for path in folder.iterdir() if path.suffix != ".md")
    _, pixels, *_ = photos.read_batch(folder, imagenet.SIDE, ([(path,) for path in paths], None))
    if args.count > 0:
        # First, since a process starts with the peak of the one that made it.
        with tempfile.TemporaryDirectory() as place:
            write_photographs(Path(place), args.count)
            output = Path(place, "out.csv")
            seconds, peak = measure(SCRIPT, "--images", place, "--output", output)
        print(f"{args.count} photographs: {seconds:.1f} s, {peak:.0f} MB")
        if peak > LIMIT:
            raise Failure(f"it needed {peak:.0f} MB, more than {LIMIT}")
    compare(imagenet.load("efficientnet_lite0"), pixels, class_labels.index_of("ostrich"))


if __name__ == "__main__":
    command.run(main)
