"""Attack photographs with one sign step (FGSM, Goodfellow et al. 2015).

    python method2_fgsm/imnet_fast_gradient.py
    python method2_fgsm/imnet_fast_gradient.py --images PHOTO FOLDER

One step, x_adv = clip(x + eps * sign(grad J(x, y))), with pixels in [0, 1].
y is what the network says of the photograph, or what --labels says; with
--target the step goes down the gradient of J(x, target).  More of it stands in
method2_fgsm/README.md, "Photographs".

reads   photographs, and the network's weights
writes  OUTPUT.csv, a row for each photograph (columns: common/README.md), and
        OUTPUT.npz with the first nine, for method2_fgsm/visualize_imnet.py
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
        title=f"sign step (FGSM), eps {args.eps:g} ({args.eps * 255:.3g} / 255){goal}",
        for_figure=functools.partial(sign_pictures.sign_pictures, targeted=target is not None),
    )


def parse(argv):
    parser = command.Parser(__doc__)
    option = parser.add_argument
    option("--eps", type=command.pixel_size, default=EPS, help="size of the step, in pixel units")
    option("--target", metavar="CLASS", help="to reach: an index from 0, a synset or a name")
    output = "default: method2_fgsm/results_imnet_{model}.csv"
    photo_run.add_arguments(parser, batch_size=4, output=output)
    args = parser.parse_args(argv)
    name = f"results_imnet_{own_model.stem(args.model)}.csv"
    args.output = args.output or files.ROOT / "method2_fgsm" / name
    return args


if __name__ == "__main__":
    command.run(main)
