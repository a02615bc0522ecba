"""What a second worker brings, measured on this machine, and what many would bring, on paper.

    python tests/benchmarks/distribution.py
    python tests/benchmarks/distribution.py --count 5000

A folder of COUNT photographs (tests/benchmarks/memory.py) is attacked with EfficientNet-Lite0 by
one Dask worker that is tied to one core, and by two, each tied to a core of its own; client and
scheduler run wherever they fall.  The workers have attacked a few photographs before, so that
starting and compiling are not timed.  Then the script as a user calls it, on the same two cores,
in one process, from start to end.  All results have to be the same bytes.

Last the estimate for the 50,000 photographs of the ImageNet validation set on 8 and 64 such
workers, with its assumptions.  The machine needs two idle cores.

reads   common/images, the installed weights
writes  nothing that stays
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from distributed import Client, LocalCluster
from memory import write_photographs

from common import command, files
from common.command import Failure
from method2_fgsm import imnet_fast_gradient

VALIDATION = 50_000
BATCH = 32
NETWORK = 125e6  # bytes a second that one storage server delivers at 1 Gbit/s
SCRIPT = Path(imnet_fast_gradient.__file__)


def rate(printed):
    return float(re.search(r"photographs a second +([\d.]+)", printed)[1])


def attack(images, output, *options):
    """Run the script in this process; returns photographs a second, as it prints them."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        imnet_fast_gradient.main(
            [f"--images={images}", f"--output={output}", f"--batch-size={BATCH}", *options]
        )
    return rate(printed.getvalue())


def pinned(count, images, few, output):
    """Photographs a second of workers with a core each, and this process's seconds a batch."""
    local = LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=0,
    )
    with local, Client(local) as client:
        where = f"--cluster={client.scheduler.address}"
        client.wait_for_workers(count)
        workers = sorted(client.nthreads())
        for worker, core in zip(workers, sorted(os.sched_getaffinity(0)), strict=False):
            client.run(os.sched_setaffinity, 0, {core}, workers=[worker])
        attack(few, output.with_name("few.csv"), where)
        busy = time.process_time()
        found = attack(images, output, where)
        busy = time.process_time() - busy
    return found, busy / -(-len(list(images.rglob("*.jpg"))) // BATCH)


def as_called(cores, images, output):
    """The script in a process of its own on `cores`; returns (photographs a second, seconds)."""
    start = time.perf_counter()
    done = subprocess.run(
        [
            sys.executable,
            SCRIPT,
            f"--images={images}",
            f"--output={output}",
            f"--batch-size={BATCH}",
        ],
        env={**os.environ, "PYTHONPATH": str(files.ROOT)},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Failure(done.stderr)
    return rate(done.stdout), time.perf_counter() - start


def estimate(one, busy, row, photograph):
    """On paper: the validation set on several workers, and what keeps it from more."""
    batches = -(-VALIDATION // BATCH)
    print(f"on paper: {VALIDATION:,} photographs, batches of {BATCH}, a core for each worker")
    print("workers   minutes   times as fast")
    for workers in (1, 8, 64):
        seconds = max(-(-batches // workers) * BATCH / one, batches * busy)
        print(f"{workers:7d}   {seconds / 60:7.1f}   {VALIDATION / one / seconds:13.1f}")
    limits = {
        f"client and scheduler, {busy * 1000:.1f} ms a batch": BATCH / busy / one,
        f"a 1 Gbit/s storage, {photograph / 1000:.0f} kB a photograph": NETWORK / photograph / one,
        f"the client's network, {row:.0f} bytes a row": NETWORK / row / one,
    }
    print("saturated by so many workers:")
    for name, workers in sorted(limits.items(), key=lambda limit: limit[1]):
        print(f"    {name:50} {workers:10,.0f}")
    print(
        f"assumed: each worker is as fast as the one measured ({one:.1f} photographs a second);\n"
        f"the slowest of 64 workers has {-(-batches // 64)} of {batches} batches"
    )


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--count", type=command.positive_int, default=1280, help="photographs")
    args = parser.parse_args(argv)
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise Failure("two workers need two cores, and this process may use one")

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        images, few = folder / "photographs", folder / "few"
        write_photographs(images, args.count)
        # Two batches for each of two workers.
        write_photographs(few, min(args.count, 4 * BATCH))
        print(f"{args.count} photographs, EfficientNet-Lite0, a core for each worker")
        print("workers   photographs a second")
        measured = {}
        for count in (1, 2):
            measured[count] = pinned(count, images, few, folder / f"{count}.csv")
            print(f"{count:7d}   {measured[count][0]:20.1f}", flush=True)
        print(f"two are {measured[2][0] / measured[1][0]:.2f} times as fast as one")
        print()
        print("as called, on two cores   photographs a second   in all, s")
        found, seconds = as_called(cores, images, folder / "called.csv")
        print(f"{'in one process':25} {found:20.1f} {seconds:11.1f}", flush=True)
        contents = [(folder / f"{name}.csv").read_bytes() for name in ("1", "2", "called")]
        same = len(set(contents)) == 1
        print(f"the CSV files are {'the same, byte for byte' if same else 'NOT the same'}")
        print()
        sizes = [path.stat().st_size for path in images.rglob("*.jpg")]
        estimate(
            measured[1][0],
            measured[1][1],
            len(contents[0]) / args.count,
            sum(sizes) / len(sizes),
        )
    return []


if __name__ == "__main__":
    command.run(main)
