r"""Everything is an ostrich: the smallest noise that turns photographs into another class.

    python method1_noise_optimization/attack_imnet.py
    python method1_noise_optimization/attack_imnet.py --images PHOTO FOLDER --save-images OTHER
    python method1_noise_optimization/attack_imnet.py --grey-levels 1
    python method1_noise_optimization/attack_imnet.py --target "giant panda" --method lbfgs
    python method1_noise_optimization/attack_imnet.py --model mine.keras --classes names.txt \
        --target boat

After figure 5 of Szegedy et al. (2014), whose photographs are all seen as "ostrich, Struthio
camelus".  The methods are those for digits (attack.py): minimal, the smallest L2 noise; lbfgs,
the paper's own formulation; sgd, gradient descent on the noise.  --target is a class for all
photographs, or random: then each gets one of its own, which its file's name and --seed decide; or
any: then each becomes the nearest other class, by minimal.  A photograph that shows its target
already is counted, and gets no noise.

The noise is a fraction of one grey level, so that rounded to a file it is gone.  --save-images
therefore searches among 8-bit images for the nearest one that is the target, and writes it as
PNG, in the same structure of folders, with ".png" added to each name.  Each PNG is read back and
classified again.  --grey-levels N takes the place of --method: no value changes by more than N
levels of 255, and as few values as can be found (grey_levels.py says how).

--images, --labels and --classes are as in method2_fgsm/imnet_fast_gradient.py, which says how
photographs are found and read.  What cannot be read is skipped with a warning.  Memory does not
grow with the folder.

reads   the photographs; the network's weights (installed by pip, downloaded, or --weights)
writes  OUTPUT.csv, a row for each photograph (columns: common/run/photo_rows.py), and OUTPUT.npz
        beside it with the first nine for method1_noise_optimization/visualize_adv_examples.py
        while it runs, the folder OUTPUT.unfinished; --resume continues from there
"""

import functools

from common import command, files
from common.networks import own_model
from common.run import photo_run
from method1_noise_optimization import attack, photo_noise

grey_levels = command.number(1, 255, "a number of grey levels from 1 to 255", whole=True)
probability = command.number(1e-300, 1 - 1e-16, "a probability above 0 and below 1")


def main(argv=None):
    args = parse(argv)
    network, target = photo_run.network_of(args), args.target
    if target not in photo_noise.GOALS:
        target = network.target(target)
    goal = photo_noise.GOALS.get(target) or f"target {network.label(target)}"
    seed = args.seed if target == "random" else None
    settings = {"script": "attack_imnet", "target": target, "seed": seed}
    how = {"max_steps": args.max_steps}
    if args.grey_levels:
        how |= {"levels": args.grey_levels, "confidence": args.confidence}
        settings["eps"] = args.grey_levels / 255
        search, to_8_bits = photo_noise.few_levels, None
        title = f"grey levels changed by {args.grey_levels} at most"
    else:
        how["method"] = title = args.method
        search, to_8_bits = attack.search, photo_noise.smallest_file

    def target_of(path):
        return target if seed is None else photo_noise.random_target(path, seed, network.classes)

    if target == "any":
        how["targeted"], target_of, to_8_bits = False, None, photo_noise.smallest_file_of_any
    return photo_run.attack(
        args,
        network,
        functools.partial(search, **how),
        target_of,
        settings=settings | how,
        title=f"{title}, {goal}",
        to_8_bits=to_8_bits,
    )


def parse(argv):
    parser = command.Parser(__doc__)
    classes = "class to reach: index from 0 to 999, synset, name, random, or any but the label"
    parser.add_argument("--target", default="ostrich", help=classes)
    command.add_seed(parser, "of random targets")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--method", choices=attack.METHODS, default="minimal", help="which search")
    few = "change values by N of 255 levels at most, and as few as possible"
    how.add_argument("--grey-levels", type=grey_levels, metavar="N", help=few)
    confidence = "of the target, at least, with --grey-levels (default: that of no other class)"
    parser.add_argument("--confidence", type=probability, help=confidence)
    defaults = ", ".join(f"{method} {steps}" for method, steps in photo_noise.MAX_STEPS.items())
    steps = "gradients for each photograph at most; for lbfgs, at each value of c"
    command.add_count(parser, "--max-steps", f"{steps} (default: {defaults})")
    folder = "method1_noise_optimization"
    output = f"CSV file (default: {folder}/results_imnet_{{model}}_{{method}}.csv)"
    photo_run.add_arguments(parser, batch_size=photo_noise.BATCH_SIZE, output=output)
    args = parser.parse_args(argv)
    if args.confidence is not None and not args.grey_levels:
        parser.error("--confidence goes with --grey-levels")
    if args.target == "any" and (args.grey_levels or args.method != "minimal"):
        parser.error("--target any goes with --method minimal")
    method = f"grey_levels_{args.grey_levels}" if args.grey_levels else args.method
    if args.max_steps is None:
        args.max_steps = photo_noise.MAX_STEPS["grey levels" if args.grey_levels else method]
    name = f"results_imnet_{own_model.stem(args.model)}_{method}.csv"
    args.output = args.output or files.ROOT / folder / name
    return args


if __name__ == "__main__":
    command.run(main)
