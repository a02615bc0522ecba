"""Throughput and peak memory of the attack on a folder of photographs.

    python tests/benchmarks/photo_stream.py
    python tests/benchmarks/photo_stream.py --count 500 --save-images

Makes a folder of COUNT photographs from the nine in common/images, turned and mirrored (360
different ones) in 640 x 480, and attacks it with EfficientNet-Lite0.  Peak memory is read after
a tenth of the folder and at its end: when memory does not grow with the folder, the two agree.

Only time and memory are to be taken from it.  The share of fooled photographs in the table is
that of nine pictures counted over and over: nearly always all copies of one are fooled, or none.

reads   common/images, the installed weights
writes  nothing that stays
"""

import resource
import tempfile
import time
from pathlib import Path

from common import command, files


def make_folder(folder, count):
    """`count` JPEG files in ten folders, from the nine photographs."""
    from PIL import Image, ImageOps

    sources = sorted(path for path in (files.COMMON / "images").iterdir() if path.suffix != ".md")
    for i in range(count):
        with Image.open(sources[i % len(sources)]) as image:
            image = ImageOps.fit(image.convert("RGB"), (640, 480)).rotate(i // len(sources) % 20)
        target = folder / f"group{i % 10}" / f"{i:05d}.jpg"
        target.parent.mkdir(exist_ok=True)
        (ImageOps.mirror(image) if i // 180 % 2 else image).save(target, quality=90)


def peak():
    """The most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--count", type=command.positive_int, default=2000, help="photographs")
    parser.add_argument("--save-images", action="store_true", help="write the PNGs as well")
    args = parser.parse_args(argv)

    from method2_fgsm import imnet_fast_gradient

    seen, early, attack = 0, None, imnet_fast_gradient.attack

    def watched(model, options, paths, *rest):
        nonlocal seen, early
        seen += len(paths)
        if early is None and seen > args.count / 10:
            early = peak()
        return attack(model, options, paths, *rest)

    imnet_fast_gradient.attack = watched
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder, "photographs")
        photographs.mkdir()
        make_folder(photographs, args.count)
        options = ["--images", str(photographs), "--output", str(Path(folder, "rows.csv"))]
        if args.save_images:
            options += ["--save-images", str(Path(folder, "png"))]
        start = time.perf_counter()
        imnet_fast_gradient.main(options)
        seconds = time.perf_counter() - start
    print(f"in all {seconds:.1f} s, {args.count / seconds:.1f} photographs a second")
    print(f"peak memory after a tenth {early:.0f} MB, at the end {peak():.0f} MB")
    return []


if __name__ == "__main__":
    command.run(main)
