"""What a second worker brings, measured on this machine, and what many would bring, on paper.

    python tests/benchmarks/distribution.py
    python tests/benchmarks/distribution.py --count 2000 --only photos

Photographs: a folder of COUNT (tests/benchmarks/memory.py) is attacked with EfficientNet-
Lite0 by one worker that is tied to one core, and by two, each tied to a core of its own.  The
throughput is the one the script prints, that of the attack with reading and compilation; "in
all" has the start of TensorFlow, the network and the merging in it too.  Training: an epoch of
the MLP and of the CNN on DIGITS digits, in the same way, with the second epoch's time counted.
The merged results of two workers are compared with those of one.

Then the estimate for the 50,000 photographs of the ImageNet validation set on 8 and 64 such
workers, with its assumptions.  The machine needs two idle cores.

reads   common/images, the installed weights, common/mnist.npz
writes  nothing that stays
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory import write_photographs

from common import command, files, models
from common.command import Failure

VALIDATION = 50000
BATCH = 32
# The worker runs on one core, and so do the threads that TensorFlow starts for it.
CHILD = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
from common import data, files
module, folder, digits, *arguments = sys.argv[2:]
files.WEIGHTS = files.WEIGHTS.__class__(folder, "weights")
files.IMG = files.WEIGHTS.__class__(folder, "img")
real = data.load
data.load = lambda split: [part[:int(digits)] for part in real(split)]
if module.endswith("distributed_training"):
    from method2_fgsm import distributed_training as training
    from common import distribution, train_mnist
    worker = distribution.worker("multiworker")
    strategy = distribution.strategy("multiworker")
    begun, real_order = [], training.order
    training.order = lambda *args: begun.append(time.perf_counter()) or real_order(*args)
    training.fit(arguments[0], strategy, worker, optimizer=train_mnist.cosine_adam(2e-3),
                 epochs=2, batch_size=int(arguments[1]), seed=0, eps=0.25, alpha=0.5)
    print("second epoch", time.perf_counter() - begun[1])
else:
    import importlib
    importlib.import_module(module).main(arguments)
"""


def run(workers, folder, module, *arguments, digits=0):
    """Run a script on `workers` cores, one each; returns (what worker 1 prints, seconds)."""
    sockets = [socket.socket() for _ in range(workers)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    cluster = {"worker": [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]}
    for one in sockets:
        one.close()
    cores = sorted(os.sched_getaffinity(0))[:workers]
    start = time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(core), module, str(folder), str(digits), *arguments],
            env={
                **os.environ,
                "PYTHONPATH": str(files.ROOT),
                "TF_CONFIG": json.dumps(
                    {"cluster": cluster, "task": {"type": "worker", "index": rank}}
                ),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, core in enumerate(cores)
    ]
    printed = [process.communicate()[0] for process in processes]
    seconds = time.perf_counter() - start
    if any(process.returncode for process in processes):
        raise Failure(f"a worker failed: {' '.join(printed)}")
    return printed[0], seconds


def photographs(count, folder):
    """Throughput of one and of two workers; returns (photographs a second, seconds besides)."""
    images = folder / "photographs"
    images.mkdir()
    write_photographs(images, count)
    print(f"{count} photographs, EfficientNet-Lite0, a core for each worker")
    print("workers   photographs a second   in all, s")
    rates, besides = [], []
    for workers in (1, 2):
        printed, seconds = run(
            workers,
            folder,
            "method2_fgsm.imnet_fast_gradient",
            *("--images", str(images), "--output", str(folder / f"{workers}.csv")),
            *("--batch-size", str(BATCH), "--strategy", "multiworker"),
        )
        rates.append(float(re.search(r"photographs a second +([\d.]+)", printed)[1]))
        besides.append(seconds - count / rates[-1])
        print(f"{workers:7d}   {rates[-1]:20.1f}   {seconds:9.1f}")
    print(f"two are {rates[1] / rates[0]:.2f} times as fast as one")
    same = (folder / "1.csv").read_bytes() == (folder / "2.csv").read_bytes()
    print(f"the two CSV files are {'the same, byte for byte' if same else 'NOT the same'}")
    print()
    return rates[0], besides[0], (folder / "1.csv").stat().st_size / count


def training(name, digits, batch_size, folder):
    """Seconds a step of one and of two workers, and the bytes that they exchange."""
    parameters = models.build(name).count_params()
    print(f"adversarial training, {name}, batches of {batch_size}, {parameters:,} parameters")
    print("workers   seconds a step   bytes a worker sends a step")
    taken = {}
    for workers in (1, 2):
        printed, _ = run(
            workers,
            folder,
            "method2_fgsm.distributed_training",
            *(name, str(batch_size)),
            digits=digits,
        )
        taken[workers] = float(re.search(r"second epoch (.*)", printed)[1]) / (digits / batch_size)
        print(f"{workers:7d}   {taken[workers]:14.4f}   {sent(parameters, workers):27,.0f}")
        # Training without the script leaves its checkpoints.
        for path in sorted(folder.glob("weights/*_checkpoints/*")):
            path.unlink()
    print(f"two are {taken[1] / taken[2]:.2f} times as fast as one")
    for network, rate in (("1 Gbit/s", 125e6), ("10 Gbit/s", 1250e6)):
        estimates = ", ".join(
            f"{workers} workers {taken[1] / workers + sent(parameters, workers) / rate:.4f} s"
            for workers in (2, 8, 64)
        )
        print(f"on paper at {network}: a step takes {estimates}")
    print("(assumed: the computing splits evenly, the network's delay costs nothing)")
    print()


def sent(parameters, workers):
    """Bytes that each worker sends in a step: a ring's all-reduce of float32 gradients."""
    return parameters * 4 * 2 * (workers - 1) / workers


def estimate(rate, besides, row):
    """On paper: the validation set on several workers."""
    print(f"on paper: {VALIDATION:,} photographs, batches of {BATCH}, a core for each worker")
    print("workers   attack, s   start and merge, s   in all   times as fast")
    alone = VALIDATION / rate + besides
    batches = -(-VALIDATION // BATCH)
    for workers in (1, 2, 8, 64):
        attack = -(-batches // workers) * BATCH / rate
        in_all = attack + besides
        print(
            f"{workers:7d}   {attack:9.0f}   {besides:18.1f}   {in_all / 60:4.1f} min"
            f"   {alone / in_all:7.1f}"
        )
    print(
        f"assumed: each worker is as fast as the one measured ({rate:.1f} a second); whole\n"
        f"batches are dealt out, so of {batches} batches the slowest of 64 workers has "
        f"{-(-batches // 64)};\n"
        f"the {besides:.1f} s of start and merging measured for one worker stay as they are; the "
        f"disk\nkeeps up, at {64 * rate:.0f} photographs a second for 64 workers; between the "
        f"workers go only\nthe rows, {row:.0f} bytes a photograph."
    )


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--count", type=command.positive_int, default=1280, help="photographs")
    parser.add_argument("--digits", type=command.positive_int, default=6000, help="an epoch")
    parser.add_argument("--only", choices=("photos", "training"), help="half of it")
    args = parser.parse_args(argv)
    if len(os.sched_getaffinity(0)) < 2:
        raise Failure("two workers need two cores, and this process may use one")

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "weights").mkdir()
        (folder / "img").mkdir()
        if args.only != "training":
            measured = photographs(args.count, folder)
        if args.only != "photos":
            for name, batch_size in (("mlp", 100), ("cnn", 200)):
                training(name, args.digits, batch_size, folder)
        if args.only != "training":
            estimate(*measured)
    return []


if __name__ == "__main__":
    command.run(main)
