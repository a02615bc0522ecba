"""The fast gradient sign method on photographs (Goodfellow et al. 2015).

    python method2_fgsm/imnet_fast_gradient.py
    python method2_fgsm/imnet_fast_gradient.py --images PHOTO FOLDER --save-images OTHER_FOLDER
    python method2_fgsm/imnet_fast_gradient.py --model vgg16 --eps 0.004 --target "giant panda"
    python method2_fgsm/imnet_fast_gradient.py --model mine.keras --classes names.txt --images PHOTO

One step of size eps along the sign of the gradient, x_adv = clip(x + eps * sign(grad J(x, y))),
with pixels in [0, 1] whatever the network.  y is the label that the network itself gives the
photograph, unless --labels says better; then top-1 and top-5 accuracy are reported.  With
`--labels folders` the folder a photograph lies in is called by its ImageNet index ("388"), name or
synset ("n02510455"); with `--labels FILE` each line of FILE is `path,class`.
With --target the step goes down the gradient of J(x, target).

--images names photographs and folders.  Below a folder all photographs are tried, in sorted order,
that end in .jpg, .png or such and are not hidden.  Results call a photograph by its path from the
deepest folder that holds all of them.  It is turned upright, its shorter side scaled to 224 pixels,
and the middle 224 x 224 cut out (common/run/photos.py says how exactly).  What cannot be read
is skipped with a warning.  Memory does not grow with the folder.

--save-images writes the same structure of folders anew with an 8-bit PNG for each photograph,
named after it with ".png" added.  Rounding goes towards the original, so that the PNG is within
eps of it too: 0.007 is 1.785 / 255, so each value changes by 1.  Below 1 / 255 = 0.0039 no 8-bit
image but the original itself is within eps.  Each PNG is read back and classified again.

A network of your own is a .keras file, and --classes the names of its classes (common/README.md).

reads   the photographs; the network's weights (installed by pip, downloaded, or --weights)
writes  OUTPUT.csv, a row for each photograph (columns: common/run/photo_rows.py), and OUTPUT.npz
        beside it with the first nine for method2_fgsm/visualize_imnet.py
        while it runs, the folder OUTPUT.unfinished; --resume continues from there
"""

import functools

from common import command, files
from common.networks import own_model
from common.run import photo_run

EPS = 0.007  # the epsilon of Goodfellow et al.'s figure 1


def main(argv=None):
    args = parse(argv)
    network = photo_run.network_of(args)
    target = None if args.target is None else network.target(args.target)
    goal = "" if target is None else f", target {network.label(target)}"

    from method2_fgsm import fgsm, sign_pictures

    settings = {"eps": args.eps, "targeted": target is not None, "batch_size": args.batch_size}
    return photo_run.attack(
        args,
        network,
        functools.partial(fgsm.fgsm, **settings),
        None if target is None else lambda path: target,
        settings={"script": "imnet_fast_gradient", "eps": args.eps, "target": target},
        title=f"fast gradient sign, eps {args.eps:g} ({args.eps * 255:.3g} / 255){goal}",
        for_figure=sign_pictures.sign_pictures,
    )


def parse(argv):
    parser = command.Parser(__doc__)
    option = parser.add_argument
    option("--eps", type=command.pixel_size, default=EPS, help="size of the step, in pixel units")
    option("--target", help="class to reach: index from 0 to 999, synset or name")
    output = "CSV file (default: method2_fgsm/results_imnet_{model}.csv)"
    photo_run.add_arguments(parser, batch_size=4, output=output)
    args = parser.parse_args(argv)
    name = f"results_imnet_{own_model.stem(args.model)}.csv"
    args.output = args.output or files.ROOT / "method2_fgsm" / name
    return args


if __name__ == "__main__":
    command.run(main)
