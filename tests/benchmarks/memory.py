"""Peak memory and time of the attack scripts on all 70,000 digits and 5,000 photographs.

    python tests/benchmarks/memory.py                    minutes: all but lbfgs
    python tests/benchmarks/memory.py --slow             lbfgs as well: far longer
    python tests/benchmarks/memory.py --digits 5000 --photographs 500

Each script runs in a process of its own, whose largest resident memory the operating system
(Linux, macOS) tells when it ends.  1 MB is a million bytes.  Exit code 1 when one needs more than
2,500 MB.

The digits are the training set and the test set, in a sample file of this benchmark alone: the
format names rows of the test set, which the training digits have not, so here the indices mean
nothing.  The photographs are the nine of common/images, turned and mirrored (360 different ones)
at 640 x 480; the script runs on a tenth of them first, to show that its memory does not grow with
the folder.  Only time and memory are to be taken from them: nearly always all copies of one
picture are fooled, or none.

reads   common/mnist.npz, common/weights/{model}.weights.h5, common/images, the installed weights
writes  nothing that stays
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from common import command, data, files
from common.command import Failure
from common.networks import mnist

LIMIT = 2500  # MB


def write_digits(path, count):
    """A sample file of the first `count` of all digits, the test set behind the training set."""
    splits = [data.load(split) for split in ("train", "test")]
    x, y = (np.concatenate(parts)[:count] for parts in zip(*splits, strict=True))
    np.savez(path, images=x, labels=y, indices=np.arange(len(x)) % 10000)


def write_photographs(folder, count):
    """`count` JPEG files in ten folders, from the nine photographs."""
    from PIL import Image, ImageOps

    sources = sorted(path for path in (files.COMMON / "images").iterdir() if path.suffix != ".md")
    for i in range(count):
        with Image.open(sources[i % len(sources)]) as image:
            image = ImageOps.fit(image.convert("RGB"), (640, 480)).rotate(i // len(sources) % 20)
        target = folder / f"group{i % 10}" / f"{i:05d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        (ImageOps.mirror(image) if i // 180 % 2 else image).save(target, quality=90)


def measure(script, *arguments):
    """Run a script of the collection; returns the seconds it took and its peak memory in MB."""
    start = time.perf_counter()
    line = [sys.executable, str(files.ROOT / script), *map(str, arguments)]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise Failure(f"{script} ended with exit code {child.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes on Linux
    return time.perf_counter() - start, usage.ru_maxrss * unit / 1e6


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--model", type=mnist.argument, default="mlp", help="which classifier")
    parser.add_argument("--digits", type=command.positive_int, default=70000, help="how many")
    parser.add_argument("--photographs", type=command.positive_int, default=5000, help="how many")
    parser.add_argument("--save-images", action="store_true", help="write the PNGs as well")
    parser.add_argument("--slow", action="store_true", help="lbfgs too")
    args = parser.parse_args(argv)
    model = f"--model {args.model}"
    method1 = "method1_noise_optimization/attack_mnist.py"
    photo = "method2_fgsm/imnet_fast_gradient.py"
    runs = [
        ("method2_fgsm/mnist_fast_gradient.py", model, args.digits),
        (method1, f"{model} --method sgd", args.digits),
        (method1, f"{model} --method minimal --starts 1", args.digits),
        *([(method1, f"{model} --method lbfgs", args.digits)] if args.slow else []),
        (photo, "", max(1, args.photographs // 10)),
        (photo, "", args.photographs),
    ]

    over = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        digits = folder / "digits.npz"
        # A process starts with the peak of the one that made it: this one has to stay small.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(write_digits, digits, args.digits).result()
        print(f"{'':72} images   seconds   peak MB", flush=True)
        for number, (script, options, count) in enumerate(runs):
            arguments = options.split()
            if script == photo:
                photographs = folder / f"photographs_{count}"
                write_photographs(photographs, count)
                arguments += ["--save-images", folder / "png"] if args.save_images else []
                arguments += ["--images", photographs, "--output", folder / f"{number}.csv"]
            else:
                arguments += ["--samples", digits, "--output", folder / f"{number}.npz"]
            seconds, peak = measure(script, *arguments)
            fits = peak <= LIMIT
            over += [] if fits else [script]
            print(
                f"{f'{script} {options}':72}{count:7,d}{seconds:10.1f}{peak:10,.0f}"
                f"   {'OK' if fits else 'over'}",
                flush=True,
            )
    if over:
        raise Failure(f"more than {LIMIT:,} MB: {', '.join(over)}")
    return []


if __name__ == "__main__":
    command.run(main)
