"""What the scripts that attack a folder of photographs share: arguments, checks, closing lines."""

import os
from typing import NamedTuple

from common import command, engine, files, models
from common.imagenet import folder_attack, labels, networks, rows
from common.imagenet.attack_batch import Job


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
    parser.add_argument(
        "--model", choices=networks.NAMES, default="efficientnet_lite0", help="the network"
    )
    add_images(parser)
    parser.add_argument(
        "--labels",
        type=labels.argument,
        metavar="folders|FILE",
        help="where the true classes come from (default: the network's own answers)",
    )
    parser.add_argument(
        "--weights", type=command.path, help="the network's weights, a Keras .h5 file"
    )
    parser.add_argument("--save-images", type=command.path, help="folder for the adversarial PNGs")
    parser.add_argument(
        "--batch-size", type=command.positive_int, default=batch_size, help="photographs at a time"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted run with the same settings"
    )
    command.add_output(parser, output)
    engine.add_arguments(parser)


def check_output(parser, args, default):
    """--output, or the path `default`, ends in .csv; the parser ends the script otherwise."""
    args.output = args.output or default
    if args.output.suffix != ".csv":
        parser.error(f"--output {files.show(args.output)} does not end in .csv")


class Found(NamedTuple):
    folder: str  # the deepest that holds all photographs
    paths: list  # of every file, from there
    y_true: list  # labels, None where unknown
    skipped: list  # (path, reason) of folders that cannot be opened


def find(args):
    """Check what can be checked before the network is loaded, and find the photographs.

    Raises `Failure` for files and folders that are not there or are no place to write.
    """
    for path in (args.output, args.output.with_suffix(".npz")):
        files.check_output(path)
    if args.save_images:
        folder_attack.check_save_images(args.save_images, args.images)
    if args.weights:
        models.check_weights(args.weights, remedy=networks.REMEDY)
    folder, paths, skipped = folder_attack.find(args.images)
    return Found(folder, paths, labels.of_photographs(args.labels, folder, paths), skipped)


def job(args, found, attack, **more):
    """The `Job` of the workers; more: its fields that are the script's own."""
    return Job(
        attack=attack,
        network=args.model,
        weights=args.weights and os.path.abspath(args.weights),
        weights_sha256=args.weights and files.sha256(args.weights),
        folder=found.folder,
        save_images=args.save_images and os.path.abspath(args.save_images),
        **more,
    )


def run(args, job, found, y_target, settings):
    """Attack all photographs as `folder_attack.attack_folder` does; returns its `Outcome`.

    settings: the script's own, on which the rows depend.
    """
    named = [files.from_root(path) for path in args.images]
    settings = settings | {
        "model": args.model,
        "weights": job.weights_sha256,
        "images": named[0] if len(named) == 1 else named,
        "labels": labels.setting(args.labels),
        "batch_size": args.batch_size,
        "save_images": args.save_images and files.from_root(args.save_images),
    }
    with files.locked(args.output), engine.start(args.workers, args.cluster) as run:
        return folder_attack.attack_folder(
            run,
            job,
            found.paths,
            found.y_true,
            y_target,
            args.output,
            settings=settings,
            batch_size=args.batch_size,
            resume=args.resume,
            skipped=found.skipped,
        )


def report(args, job, outcome, title):
    """Print the closing table under its title; returns the paths that were written."""
    print(f"{networks.TITLES[args.model]}, {title}")
    saved = bool(args.save_images)
    lines = rows.summary(rows.read(args.output, job.columns), saved=saved)
    if job.columns == rows.OF_METHOD_1:
        lines += rows.noise_summary(rows.read(args.output, job.columns), saved=saved)
    print("\n".join(lines))
    if outcome.skipped:
        print(f"skipped files        {outcome.skipped:7d}")
    if outcome.attacked:
        speed = outcome.attacked / outcome.seconds
        print(f"photographs a second {speed:7.1f}  (compilation and reading included)")
    written = [args.output, args.output.with_suffix(".npz")]
    written += [args.save_images] if saved else []
    return written
