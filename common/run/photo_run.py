"""Attack a folder of photographs, batch by batch: what the scripts of both methods share.

Which photographs make a batch depends on their place in the list alone, so the rows are the same
whoever works.  Each batch leaves a part of the CSV in the folder NAME.unfinished; when all are
there they are joined, and the folder goes.  So a run that is interrupted, even killed, destroys
nothing, and a later one does only the batches that are missing.
"""

import functools
import hashlib
import itertools
import json
import os
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common import command, files, results
from common.command import Failure
from common.networks import imagenet, own_model
from common.run import class_labels, engine, photo_rows, photos

KEPT = 9  # photographs for the figure, three by three
REMEDY = "start again without --resume"


def add_arguments(parser, *, batch_size, output):
    """The arguments of every such script.  batch_size: the default.  output: what to say of it."""
    option, path, images = parser.add_argument, command.path, [files.COMMON / "images"]
    parser.usage = "%(prog)s [options]"
    own_model.add_model(parser, "efficientnet_lite0", imagenet.NAMES)
    option("--classes", type=path, metavar="FILE", help="of a .keras file: its classes, one a line")
    pictures = "photographs and folders (default: common/images)"
    option("--images", type=path, nargs="+", default=images, metavar="P", help=pictures)
    classes = "true classes: `folders` or a file (default: as seen)"
    option("--labels", type=class_labels.argument, metavar="L", help=classes)
    option("--weights", type=path, metavar="FILE", help="the network's weights, a Keras .h5 file")
    option("--save-images", type=path, metavar="DIR", help="folder for PNGs and whole photographs")
    quality = command.number(1, 100, "a quality from 1 to 100", whole=True)
    command.option(parser, "--jpeg-quality", quality, 90, "of whole photographs", metavar="Q")
    option("--treatments", action="store_true", help="count what survives scaling, JPEG, ...")
    size = "photographs for a core at a time"
    command.option(parser, "--batch-size", command.positive_int, batch_size, size, metavar="N")
    option("--resume", action="store_true", help="continue a run with the same settings")
    option("--output", type=path, metavar="CSV", help=output)
    engine.add_arguments(parser)


def network_of(args):
    """The `own_model.Network` that `args` name; of a file it says in one line what it found."""
    names = args.classes and class_labels.read_names(args.classes)
    if isinstance(args.model, Path):
        engine.one_thread()
    return imagenet.open_any(args.model, names, pixels=args.pixels, weights=args.weights)


def attack(args, network, attack, target_of, settings, title, *, to_8_bits=None, for_figure=None):
    """Attack all photographs, write their rows, print the table; returns the paths written.

    args: of `add_arguments`.  network: of `network_of`.  attack(model, x, y) -> x_adv, or (x_adv,
    steps); y: the labels to leave, or to reach.  target_of(path): the label that a photograph is to
    reach; None: leave the label.  settings: the script's own, for JSON.
    to_8_bits(model, pixels, x_adv, y) -> uint8, if not `photos.round_to_8_bits`.
    for_figure(model, x, y) -> more arrays of the first photographs.  Workers import the functions.
    Raises `Failure`, if possible before the network is loaded; on Ctrl-C it says how to go on.
    """
    output, pngs, skipped = args.output, args.save_images, []
    settings = settings | network.settings() | {"weights": network.sha256}
    folder, paths = photos.find(args.images, lambda *problem: skipped.append(skip(*problem)))
    if args.treatments and not pngs:
        raise Failure("--treatments looks at files: name a folder for them with --save-images")
    if pngs:
        photos.make_apart(pngs, [folder, *filter(Path.is_dir, args.images)])
    labels = class_labels.of_photographs(args.labels, folder, paths, network.names)
    digest = hashlib.sha256(os.fsencode("\0".join(paths))).hexdigest()
    settings |= {
        "labels": class_labels.setting(args.labels),
        "images": [command.from_root(path) for path in args.images],
        "save_images": pngs and command.from_root(pngs),
        "jpeg_quality": args.jpeg_quality,
        "treatments": args.treatments,
        "photographs": f"{len(paths)} with the names of SHA-256 {digest}",
        "batch_size": args.batch_size,
    }
    if output.suffix != ".csv":
        raise Failure(f"--output {files.show(output)} does not end in .csv: name one that does")
    written = [files.check_output(path, args) for path in (output, output.with_suffix(".npz"))]
    written += [pngs] if pngs else []
    targets = [target_of and target_of(path) for path in paths]
    photographs = list(zip(paths, labels, targets, strict=True))
    saving = pngs and (folder, os.path.abspath(pngs), args.jpeg_quality, args.treatments)
    how = saving, to_8_bits or photos.round_to_8_bits, for_figure
    how += (settings.get("confidence") or 0,)
    with locked(output) as unfinished, engine.start(args.cluster) as run:
        run = functools.partial(
            run,
            functools.partial(photo_rows.attack_batch, network, attack, *how),
            prepare=functools.partial(photos.read_batch, folder, network.shape[:2]),
            name=lambda batch: f"the batch that begins with {batch[0][0][0]}",
        )
        began = time.perf_counter()
        attacked = collect(run, photographs, unfinished, output, settings, args.resume)
        speed = attacked / (time.perf_counter() - began)
    lines, count = photo_rows.summary(output)
    print(f"{imagenet.title(network.model)}, {title}", *lines, sep="\n")
    if passed_over := len(skipped) + len(paths) - count:
        print(f"skipped files        {passed_over:7d}")
    if attacked:
        print(f"photographs a second {speed:7.1f}  (compilation and reading included)")
    return written


def skip(path, reason):
    """Name on stderr what cannot be read, and why, in one line."""
    tqdm.write(command.one_line(f"skipped {path}: {reason}"), file=sys.stderr)


@contextmanager
def locked(output):
    """Yield NAME.unfinished for NAME.csv, this process's alone; `Failure` if another has it.  The
    operating system's lock ends with the process, however that ends; Windows has none."""
    folder = output.with_suffix(".unfinished")
    with ExitStack() as stack:
        with files.writing(folder):
            folder.mkdir(exist_ok=True)
            if os.name == "posix":
                import fcntl

                try:
                    descriptor = os.open(folder, os.O_RDONLY)
                    stack.callback(os.close, descriptor)
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # A run that has ended meanwhile removes its folder, and a third makes it anew.
                    if not os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                        raise FileNotFoundError
                except (BlockingIOError, FileNotFoundError) as error:
                    shown = f"another run is writing {files.show(output)}"
                    raise Failure(f"{shown}: wait for it, or name another --output") from error
        try:
            yield folder
        finally:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def left(unfinished, output, settings):
    """The parts of the CSV that an earlier run left; of a complete one, the CSV itself.  Raises
    `Failure` when it had other settings."""
    npz, written = output.with_suffix(".npz"), unfinished / "settings.json"
    if written.is_file():
        shown, parts = files.show(unfinished), sorted(unfinished.glob("[0-9]*.csv"))
        try:
            earlier = dict(json.loads(written.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError) as error:
            raise Failure(f"{shown} does not say what run it is: {REMEDY}") from error
    elif output.is_file() and npz.is_file():
        shown, parts = files.show(output), [output]
        earlier = results.load(npz, remedy=REMEDY)["config"]
    else:
        return []
    for name in settings:
        was, now = (json.dumps(each.get(name)) for each in (earlier, settings))
        if was != now:
            raise Failure(f"cannot resume {shown}: {name} was {was} and is {now}; {REMEDY}")
    return parts


def collect(run, photographs, unfinished, output, settings, resume):
    """Have `run` attack the photographs, (path, label, target) each, that have no row yet, and join
    all rows.  Returns how many were attacked."""
    parts = left(unfinished, output, settings) if resume else []
    if parts == [output]:
        return 0
    before = count = sum(1 for part in parts for _ in photo_rows.read(part))
    starts = range(len(parts) * settings["batch_size"], len(photographs), settings["batch_size"])
    # The figure shows the first photographs that can be read.
    batches = ((photographs[i : i + starts.step], count < KEPT) for i in starts)
    try:
        with tqdm(initial=starts.start, total=len(photographs), unit="photo", disable=None) as bar:
            for rows, figure, unread in run(batches):
                if not parts:
                    clear(unfinished)
                    with files.replacing(unfinished / "settings.json") as temporary:
                        temporary.write_text(json.dumps(settings), encoding="utf-8")
                part = unfinished / f"{len(parts):08d}.csv"
                if figure and count < KEPT:
                    with files.replacing(part.with_suffix(".npz")) as temporary:
                        np.savez(temporary, **figure)
                photo_rows.write(part, rows)
                parts.append(part)
                count += len(rows)
                for path, reason in unread:
                    skip(path, reason)
                bar.update(len(rows) + len(unread))
    except KeyboardInterrupt as interrupt:
        if not parts:
            raise
        shown = files.show(unfinished)
        raise KeyboardInterrupt(f"{shown} has what was done; go on with --resume") from interrupt
    if not count:
        clear(unfinished)
        raise Failure("no readable image among all that was skipped: give other --images")
    kept = sorted(unfinished.glob("[0-9]*.npz"))
    kept = [files.read_npz(path, holds="a batch of a run", remedy=REMEDY) for path in kept]
    figure = {name: np.concatenate([each[name] for each in kept])[:KEPT] for name in kept[0]}
    config = settings | {"paths": figure.pop("paths").tolist()}
    # The .npz is in its place before the CSV is: complete is what has both.
    results.save(output.with_suffix(".npz"), config=config, **figure)
    photo_rows.write(output, itertools.chain.from_iterable(map(photo_rows.read, parts)))
    clear(unfinished)
    return count - before


def clear(unfinished):
    """Remove all that is unfinished, but for the folder itself, which is the lock."""
    with files.writing(unfinished):
        for path in unfinished.iterdir():
            path.unlink()
