"""Attack a folder of photographs, batch by batch: what the scripts of both methods share.

The photographs are found and labelled, cut into batches by their place in the list, attacked
(photo_batch.py) side by side, here or on workers (engine.py), and their rows joined (rows.py).
Which photographs make a batch depends on nothing else, so the rows are the same whoever works.
"""

import functools
import os
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common import command, files
from common.command import Failure
from common.networks import imagenet, own_model
from common.run import class_labels, engine, photo_batch, photo_rows
from common.run.photo_batch import Batch, Job


def add_images(parser):
    """--images: which photographs."""
    parser.add_argument(
        "--images",
        type=command.path,
        nargs="+",
        default=[files.COMMON / "images"],
        metavar="PATH",
        help="photographs and folders of them (default: common/images)",
    )


def add_arguments(parser, *, batch_size, output):
    """The arguments of every such script.  batch_size: the default.  output: what to say of it."""
    own_model.add_model(parser, "efficientnet_lite0", photographs=True)
    parser.add_argument(
        "--classes",
        type=command.path,
        metavar="FILE",
        help="of a .keras file: the names of its classes, one a line (default: numbers)",
    )
    add_images(parser)
    parser.add_argument(
        "--labels",
        type=class_labels.argument,
        metavar="folders|FILE",
        help="where the true classes come from (default: the network's own answers)",
    )
    parser.add_argument(
        "--weights", type=command.path, help="the network's weights, a Keras .h5 file"
    )
    parser.add_argument("--save-images", type=command.path, help="folder for the adversarial PNGs")
    command.add_count(parser, "--batch-size", "photographs for a core at a time", batch_size)
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted run with the same settings"
    )
    command.add_output(parser, output)
    engine.add_arguments(parser)


def network_of(args):
    """The `own_model.Network` that `args` name; of a file it says in one line what it found."""
    names = args.classes and class_labels.read_names(args.classes)
    if isinstance(args.model, Path):
        engine.one_thread()
    return own_model.open_network(args.model, names=names, pixels=args.pixels, weights=args.weights)


def check_output(parser, args, default):
    """--output, or the path `default`, ends in .csv; the parser ends the script otherwise."""
    if isinstance(args.model, Path) and args.weights:
        parser.error("--weights goes with our networks: a .keras file holds its own")
    args.output = args.output or default
    if args.output.suffix != ".csv":
        parser.error(f"--output {files.show(args.output)} does not end in .csv")


def find(images):
    """(folder, paths, skipped): see `photos.find`; (path, reason) for folders not opened.

    images: the files and folders to attack.  Raises `Failure` when there is no file.
    """
    from common.run import photos

    skipped = []
    folder, paths = photos.find(images, lambda *problem: skipped.append(problem))
    if not paths:
        raise Failure(f"no image in {files.show(folder)}: it holds no file")
    return folder, paths, skipped


def attack(args, network, attack, target_of, settings, title, *, to_8_bits=None, for_figure=None):
    """Attack all photographs, write their rows, print the table; returns the paths written.

    args: of `add_arguments`.  network: of `network_of`.  attack, to_8_bits, for_figure: see
    `photo_batch.Job`.
    target_of(path): the label that a photograph is to reach; None where the attack is to leave
    the label.  settings: the script's own, on which the rows depend, for JSON.  title: of the
    table.
    Files that cannot be read are named on stderr.  Raises `Failure` for whatever a user can mend,
    if possible before the network is loaded, and `command.Interrupted` on Ctrl-C.
    """
    folder, paths, skipped = find(args.images)
    _check(args, folder)
    known = class_labels.of_photographs(args.labels, folder, paths, network.own_names())
    y_true = np.array([-1 if label is None else label for label in known], np.int64)
    y_target = target_of and np.array([target_of(path) for path in paths], np.int64)
    job = Job(
        attack=attack,
        network=network,
        folder=folder,
        save_images=args.save_images and os.path.abspath(args.save_images),
        to_8_bits=to_8_bits,
        for_figure=for_figure,
    )
    named = [files.from_root(path) for path in args.images]
    settings = settings | {
        "weights": network.sha256,
        **network.settings(),
        "images": named[0] if len(named) == 1 else named,
        "labels": class_labels.setting(args.labels),
        "batch_size": args.batch_size,
        "save_images": args.save_images and files.from_root(args.save_images),
    }
    began = time.perf_counter()
    with photo_rows.locked(args.output), engine.start(args.cluster) as run:
        attacked, passed_over = _attack(
            run, job, Batch(paths, y_true, y_target, False), skipped, args, settings
        )
    seconds = time.perf_counter() - began

    saved = bool(args.save_images)
    print(f"{imagenet.title(network.model)}, {title}")
    print("\n".join(photo_rows.summary(photo_rows.read(args.output), saved=saved)))
    if passed_over:
        print(f"skipped files        {passed_over:7d}")
    if attacked:
        speed = attacked / seconds
        print(f"photographs a second {speed:7.1f}  (compilation and reading included)")
    written = [args.output, args.output.with_suffix(".npz")]
    return written + ([args.save_images] if saved else [])


def _check(args, photographs):
    """Raise `Failure` for files and folders that are not there or are no place to write.

    photographs: the folder that all of them lie in.
    """
    for path in (args.output, args.output.with_suffix(".npz")):
        files.check_output(path, args)
    if not args.save_images:
        return
    shown, place = files.show(args.save_images), args.save_images.resolve()
    given = [folder.resolve() for folder in args.images if folder.is_dir()]
    if place == Path(photographs).resolve() or any(map(place.is_relative_to, given)):
        raise Failure(
            f"--save-images {shown} lies among the photographs: what is saved there would be taken "
            "for one, or overwrite it; name a folder elsewhere"
        )
    if args.save_images.exists() and not args.save_images.is_dir():
        raise Failure(f"--save-images {shown} is not a folder")
    if not args.save_images.parent.is_dir():
        parent = files.show(args.save_images.parent)
        raise Failure(f"cannot write {shown}: the folder {parent} does not exist")


def _attack(run, job, photographs, skipped, args, settings):
    """Attack the batches that are missing and join all: how many (attacked, skipped).

    photographs: a `Batch` of all of them.  skipped: (path, reason) of folders not opened.
    """
    known = photo_rows.described(settings, photographs.paths)
    done = photo_rows.resume(args.output, known) if args.resume else set()
    if done is None:  # complete
        return 0, 0
    if job.save_images:
        with files.writing(args.save_images):
            os.makedirs(job.save_images, exist_ok=True)
    size, total = args.batch_size, len(photographs.paths)
    count, kept, attacked = -(-total // size), 0, 0
    for number in sorted(done):
        kept += len(photo_rows.read_batch(args.output, number)[2].get("paths", ()))
    todo = [number for number in range(count) if number not in done]

    def batches():
        for number in todo:
            which = range(number * size, min((number + 1) * size, total))
            yield photographs.rows(which)._replace(keep=kept < photo_rows.KEPT)

    found = run(
        functools.partial(photo_batch.attack, job),
        batches(),
        prepare=functools.partial(photo_batch.read, job),
        name=lambda batch: f"the batch that begins with {batch.paths[0]}",
    )
    early, begun = [], bool(done)
    bar = tqdm(total=total, initial=min(len(done) * size, total), unit="photo", disable=None)
    try:
        with bar:
            for number, (batch_rows, figure, unreadable) in zip(todo, found, strict=True):
                early.append((number, batch_rows, unreadable, figure))
                attacked += len(batch_rows)
                kept += len(figure.get("paths", ()))
                # Where nothing can be read the run ends with one line, not one for every file.
                if not attacked and not done:
                    continue
                if not begun:
                    # What an interrupted run left is given up only now that this one works.
                    photo_rows.begin(args.output, known)
                    _report(skipped)
                    begun = True
                for part in early:
                    photo_rows.add(args.output, *part)
                    _report(part[2])
                    bar.update(len(part[1]) + len(part[2]))
                early.clear()
    except KeyboardInterrupt as interrupt:
        if not begun:
            raise
        raise command.Interrupted(
            f"{files.show(photo_rows.unfinished(args.output))} has what was done; "
            "go on with --resume"
        ) from interrupt
    if not begun:
        (path, reason), *others = skipped + [problem for part in early for problem in part[2]]
        more = f", and {len(others)} more" if others else ""
        raise Failure(f"no readable image in {job.folder}: skipped {path}: {reason}{more}")
    return attacked, len(skipped) + photo_rows.finish(args.output, known, count, job.network.shape)


def _report(skipped):
    """Name on stderr what is passed over and why, a line each."""
    # A name that is no valid UTF-8 must not end the run.
    encoding = sys.stderr.encoding or "utf-8"
    for path, reason in skipped:
        line = command.one_line(f"skipped {path}: {reason}")
        tqdm.write(line.encode(encoding, "replace").decode(encoding), file=sys.stderr)
