"""The fast gradient sign method on photographs (Goodfellow et al. 2015).

    python method2_fgsm/imnet_fast_gradient.py
    python method2_fgsm/imnet_fast_gradient.py --images PHOTO FOLDER --save-images OTHER_FOLDER
    python method2_fgsm/imnet_fast_gradient.py --model vgg16 --eps 0.004 --target "giant panda"

One step of size eps along the sign of the gradient, x_adv = clip(x + eps * sign(grad J(x, y))),
with pixels in [0, 1] whatever the network.  y is the label that the network itself gives the
photograph, unless --labels says better; then top-1 and top-5 accuracy are reported.  With
`--labels folders` the folder a photograph lies in is called by its ImageNet index ("388") or
synset ("n02510455"); with `--labels FILE` each line of FILE holds a file name and its class.
With --target the step goes down the gradient of J(x, target).

--images names photographs and folders.  Every file below a folder is tried, in sorted order,
but for hidden ones and what photo managers leave: JPEG, PNG, BMP, GIF, WebP, and where Pillow
reads them AVIF, TIFF and JPEG 2000.  Results call a photograph by its path from the deepest
folder that holds all of them.  It is turned upright, its shorter side scaled to 224 pixels, and
the middle 224 x 224 cut out (common/imagenet/photos.py says how exactly).  What cannot be read
is skipped with a warning.  Memory does not grow with the folder.

--save-images writes the same structure of folders anew with an 8-bit PNG for each photograph,
named after it with ".png" added.  Rounding goes towards the original, so that the PNG is within
eps of it too: 0.007 is 1.785 / 255, so each value changes by 1.  Below 1 / 255 = 0.0039 no 8-bit
image but the original itself is within eps.  Each PNG is read back and classified again.

reads   the photographs; the network's weights (installed by pip, downloaded, or --weights)
writes  OUTPUT.csv, a row for each photograph (columns: common/imagenet/rows.py), and OUTPUT.npz
        beside it with the first nine for method2_fgsm/visualize_imnet.py
        while it runs, OUTPUT.partial.csv and OUTPUT.partial.npz; --resume continues from there
"""

import functools
import os

from common import command, engine, files, models
from common.imagenet import folder_attack, labels, networks, rows
from common.imagenet.attack_batch import Job

EPS = 0.007  # the epsilon of Goodfellow et al.'s figure 1


def main(argv=None):
    args = parse(argv)
    npz = args.output.with_suffix(".npz")
    for path in (args.output, npz):
        files.check_output(path)
    target = None if args.target is None else labels.index_of(args.target)
    if args.save_images:
        folder_attack.check_save_images(args.save_images, args.images)
    if args.weights:
        models.check_weights(args.weights, remedy=networks.REMEDY)
    folder, paths, unopened = folder_attack.find(args.images)
    y_true = labels.of_photographs(args.labels, folder, paths)
    named = [files.from_root(path) for path in args.images]

    from method2_fgsm import fgsm, sign_pictures

    job = Job(
        attack=functools.partial(
            fgsm.fgsm, eps=args.eps, targeted=target is not None, batch_size=args.batch_size
        ),
        network=args.model,
        weights=args.weights and os.path.abspath(args.weights),
        weights_sha256=args.weights and files.sha256(args.weights),
        folder=folder,
        target=target,
        save_images=args.save_images and os.path.abspath(args.save_images),
        for_figure=sign_pictures.sign_pictures,
    )
    settings = {
        "script": "imnet_fast_gradient",
        "model": args.model,
        "weights": job.weights_sha256,
        "eps": args.eps,
        "target": target,
        "images": named[0] if len(named) == 1 else named,
        "labels": labels.setting(args.labels),
        "batch_size": args.batch_size,
        "save_images": args.save_images and files.from_root(args.save_images),
    }
    with files.locked(args.output), engine.start(args.workers, args.cluster) as run:
        outcome = folder_attack.attack_folder(
            run,
            job,
            paths,
            y_true,
            args.output,
            settings=settings,
            batch_size=args.batch_size,
            resume=args.resume,
            skipped=unopened,
        )

    goal = "" if target is None else f", target {labels.names()[target]}"
    eps = f"eps {args.eps:g} ({args.eps * 255:.3g} / 255)"
    print(f"{networks.TITLES[args.model]}, fast gradient sign, {eps}{goal}")
    print("\n".join(rows.summary(rows.read(args.output), saved=bool(args.save_images))))
    if outcome.skipped:
        print(f"skipped files        {outcome.skipped:7d}")
    if outcome.attacked:
        speed = outcome.attacked / outcome.seconds
        print(f"photographs a second {speed:7.1f}  (compilation and reading included)")
    written = [args.output, npz, *([args.save_images] if args.save_images else [])]
    for path in written:
        print(f"wrote {files.show(path)}")
    return written


def parse(argv):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "--model", choices=networks.NAMES, default="efficientnet_lite0", help="the network"
    )
    parser.add_argument(
        "--images",
        type=command.path,
        nargs="+",
        default=[files.COMMON / "images"],
        metavar="PATH",
        help="photographs and folders of them (default: common/images)",
    )
    parser.add_argument(
        "--labels",
        type=labels.argument,
        metavar="folders|FILE",
        help="where the true classes come from (default: the network's own answers)",
    )
    parser.add_argument(
        "--eps", type=command.pixel_size, default=EPS, help="size of the step, in pixels of [0, 1]"
    )
    parser.add_argument("--target", help="class to reach: index from 0 to 999, synset or name")
    parser.add_argument(
        "--weights", type=command.path, help="the network's weights, a Keras .h5 file"
    )
    parser.add_argument("--save-images", type=command.path, help="folder for the adversarial PNGs")
    parser.add_argument(
        "--batch-size", type=command.positive_int, default=32, help="photographs at a time"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted run with the same settings"
    )
    command.add_output(parser, "CSV file (default: method2_fgsm/results_imnet_{model}.csv)")
    engine.add_arguments(parser)
    args = parser.parse_args(argv)
    if args.output is None:
        args.output = files.ROOT / "method2_fgsm" / f"results_imnet_{args.model}.csv"
    if args.output.suffix != ".csv":
        parser.error(f"--output {files.show(args.output)} does not end in .csv")
    return args


if __name__ == "__main__":
    command.run(main)
