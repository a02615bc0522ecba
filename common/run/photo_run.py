"""Attack a folder of photographs, batch by batch: what the scripts of both methods share.

The photographs are found and labelled, cut into batches by their place in the list, attacked side
by side, here or on workers (engine.py), and their rows joined (photo_rows.py).  Which photographs
make a batch depends on nothing else, so the rows are the same whoever works.
"""

import argparse
import functools
import hashlib
import os
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common import command, files
from common.command import Failure
from common.networks import imagenet, own_model
from common.run import attack_run, class_labels, engine, photo_rows, photos


def add_arguments(parser, *, batch_size, output):
    """The arguments of every such script.  batch_size: the default.  output: what to say of it."""
    option, path, images = parser.add_argument, command.path, [files.COMMON / "images"]
    own_model.add_model(parser, "efficientnet_lite0", photographs=True)
    option("--classes", type=path, metavar="FILE", help="of a .keras file: its classes, one a line")
    pictures = "photographs and folders of them (default: common/images)"
    option("--images", type=path, nargs="+", default=images, metavar="PATH", help=pictures)
    classes = "the true classes: folders, or a file (default: the network's own answers)"
    option("--labels", type=class_labels.argument, metavar="folders|FILE", help=classes)
    option("--weights", type=path, help="the network's weights, a Keras .h5 file")
    option("--save-images", type=path, help="folder for the adversarial PNGs")
    command.add_count(parser, "--batch-size", "photographs for a core at a time", batch_size)
    option("--resume", action="store_true", help="continue a run with the same settings")
    option("--output", type=csv_file, help=output)
    engine.add_arguments(parser)


def csv_file(text):
    """An argument that names a CSV file."""
    if command.path(text).suffix != ".csv":
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .csv")
    return command.path(text)


def network_of(args):
    """The `own_model.Network` that `args` name; of a file it says in one line what it found."""
    names = args.classes and class_labels.read_names(args.classes)
    if isinstance(args.model, Path):
        engine.one_thread()
    return own_model.open_network(args.model, names=names, pixels=args.pixels, weights=args.weights)


def attack(args, network, attack, target_of, settings, title, *, to_8_bits=None, for_figure=None):
    """Attack all photographs, write their rows, print the table; returns the paths written.

    args: of `add_arguments`.  network: of `network_of`.  attack(model, x, y) -> x_adv, or (x_adv,
    steps); y: the labels to leave, or to reach.
    target_of(path): the label that a photograph is to reach; None where the attack is to leave
    the label.  settings: the script's own, on which the rows depend, for JSON.  title: of the
    table.  to_8_bits(model, pixels, x_adv, y) -> uint8, if not `round_to_8_bits`.
    for_figure(model, x, y) -> more arrays of the first photographs.  Workers get these functions:
    they have to be importable.
    Files that cannot be read are named on stderr.  Raises `Failure` for whatever a user can mend,
    if possible before the network is loaded, and `command.Interrupted` on Ctrl-C.
    """
    skipped = []
    folder, paths = photos.find(args.images, lambda *problem: skipped.append(skip(*problem)))
    if not paths:
        raise Failure(f"no image in {files.show(folder)}: it holds no file")
    labels = class_labels.of_photographs(args.labels, folder, paths, network.names)
    targets = [target_of and target_of(path) for path in paths]
    photographs = list(zip(paths, labels, targets, strict=True))
    _check(args, folder)
    size, pngs = args.batch_size, args.save_images and os.path.abspath(args.save_images)
    named = [files.from_root(path) for path in args.images]
    settings = settings | {
        "weights": network.sha256,
        **network.settings(),
        "images": named[0] if len(named) == 1 else named,
        "labels": class_labels.setting(args.labels),
        "batch_size": size,
        "save_images": pngs and files.from_root(pngs),
        "photographs": hashlib.sha256(os.fsencode("\0".join(paths))).hexdigest(),
    }
    read = functools.partial(read_batch, folder, network.shape[:2], pngs)
    work = functools.partial(
        attack_batch, network, attack, pngs, to_8_bits or round_to_8_bits, for_figure
    )
    with photo_rows.locked(args.output), engine.start(args.cluster) as run:
        done = photo_rows.resume(args.output, settings) if args.resume else 0
        began = time.perf_counter()
        if done is None:  # complete
            attacked, (lines, count) = 0, photo_rows.summary(photo_rows.read(args.output))
        else:
            run = functools.partial(run, work, prepare=read, name=_name)
            attacked = _attack(run, photographs, size, done, args.output, settings)
            lines, count = photo_rows.finish(args.output, settings, -(-len(paths) // size))
        seconds = time.perf_counter() - began
    print(f"{imagenet.title(network.model)}, {title}", *lines, sep="\n")
    if passed_over := len(skipped) + len(paths) - count:
        print(f"skipped files        {passed_over:7d}")
    if attacked:
        speed = attacked / seconds
        print(f"photographs a second {speed:7.1f}  (compilation and reading included)")
    written = [args.output, args.output.with_suffix(".npz")]
    return written + ([args.save_images] if pngs else [])


def _check(args, photographs):
    """Raise `Failure` for files and folders that are no place to write.

    photographs: the folder that all of them lie in.
    """
    for path in (args.output, args.output.with_suffix(".npz")):
        files.check_output(path, args)
    if not args.save_images:
        return
    place = args.save_images.resolve()
    given = [folder.resolve() for folder in args.images if folder.is_dir()]
    if place == Path(photographs).resolve() or any(map(place.is_relative_to, given)):
        raise Failure(
            f"--save-images {files.show(args.save_images)} lies among the photographs: what is "
            "saved there would be taken for one, or overwrite it; name a folder elsewhere"
        )
    if not args.save_images.is_dir():
        with files.writing(args.save_images):
            args.save_images.mkdir()


def skip(path, reason):
    """Say on stderr what is passed over, and why, in one line."""
    tqdm.write(command.one_line(f"skipped {path}: {reason}"), file=sys.stderr)


def _name(batch):
    (path, *_), *_ = batch[0]
    return f"the batch that begins with {path}"


def _attack(run, photographs, size, done, output, settings):
    """Attack the batches after the first `done`; returns how many photographs were attacked."""
    before = count = sum(1 for _ in photo_rows.read(output, done))
    done = done if count else 0
    starts = range(done * size, len(photographs), size)
    # The figure shows the first photographs that can be read.
    batches = ((photographs[i : i + size], count < photo_rows.KEPT) for i in starts)
    try:
        with tqdm(total=len(photographs), unit="photo", disable=None) as bar:
            bar.update(starts.start)
            for number, (rows, figure, unread) in enumerate(run(batches), done):
                if number == 0:
                    photo_rows.begin(output, settings)
                photo_rows.add(output, number, rows, figure if count < photo_rows.KEPT else {})
                count += len(rows)
                for path, reason in unread:
                    skip(path, reason)
                bar.update(len(rows) + len(unread))
    except KeyboardInterrupt as interrupt:
        if not count:
            raise
        left = files.show(photo_rows.unfinished(output))
        raise command.Interrupted(f"{left} has what was done; go on with --resume") from interrupt
    if not count:
        photo_rows.clear(output)
        raise Failure("no readable image among all that was skipped: give other --images")
    return count - before


# What workers do ---------------------------------------------------------------------------------


def read_batch(folder, side, pngs, batch):
    """What can be read of a batch, (photographs, for a figure?), for `attack_batch`.

    Skipped are (path, reason), also where the name of the PNG would be longer than systems take.
    """
    paths = [path for path, *_ in batch[0]]
    long = [path for path in paths if pngs and len(os.fsencode(Path(path).name)) > 251]
    paths, pixels, skipped = photos.read_batch(folder, [p for p in paths if p not in long], side)
    skipped += [(path, "with .png added its name is too long to be saved") for path in long]
    return [each for each in batch[0] if each[0] in paths], pixels, skipped, batch[1]


def attack_batch(network, attack, pngs, to_8_bits, for_figure, batch):
    """Attack what was read, save its PNGs, and look at original, adversarial image and PNG.

    Returns rows, arrays of them for the figure (none: an empty dict), and what was skipped.
    """
    photographs, pixels, skipped, drawn = batch
    if not photographs:
        return [], {}, skipped
    paths, labels, targets = zip(*photographs, strict=True)
    model, judge = own_model.load(network)
    x = _floats(pixels)
    before = own_model.answers(model, judge, x)
    known = np.array([-1 if label is None else label for label in labels])
    y = np.where(known < 0, before[0], known)
    aim = y if targets[0] is None else np.array(targets)
    x_adv, *after, steps = attack_run.attack_batch(network, attack, (x, aim))
    noise, png, change = x_adv - x, None, None
    if pngs:
        saved = save(pngs, paths, to_8_bits(model, pixels, x_adv, aim))
        png = own_model.answers(model, judge, _floats(saved))
        change = (saved.astype(int) - pixels) / 255
    rows = photo_rows.rows(photographs, before, after, noise, steps, png, change)
    if not drawn:
        return rows, {}, skipped
    figure = {
        "paths": np.array(paths),
        "xs": x,
        "noises": noise,
        "y_trues": y,
        "y_preds": before[0],
        "y_preds_adversarial": after[0],
        "confidences": photo_rows.confidences(before),
        "confidences_adversarial": photo_rows.confidences(after),
    }
    if aim is not y:
        figure["y_targets"] = aim
    if steps is not None:
        figure["steps"] = steps
    return rows, figure | (for_figure(model, x, aim) if for_figure else {}), skipped


def _floats(pixels):
    return pixels.astype(np.float32) / np.float32(255)


def round_to_8_bits(model, pixels, x_adv, y):
    """The adversarial images as uint8, rounded towards the original `pixels` (uint8).

    No value moves further from the original than in x_adv, so epsilon still holds.
    """
    change = x_adv.astype(np.float64) * 255 - pixels
    # A thousandth is float32's rounding: 2 / 255 comes as 1.99999 or 2.00001 levels.
    levels = np.trunc(change + np.copysign(1e-3, change))
    return (pixels + levels).astype(np.uint8)


def save(folder, paths, images):
    """Write uint8 images as PNG and return them as they are read back, uint8."""
    saved = []
    for path, image in zip(paths, images, strict=True):
        png = Path(folder, f"{path}.png")
        with files.writing(png):
            png.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(png) as temporary:
            photos.save(temporary, image)
        saved.append(photos.read(png, image.shape[:2]))
    return np.stack(saved)
