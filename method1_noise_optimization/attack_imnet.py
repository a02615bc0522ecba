"""Turn photographs into ostriches, or another class, with the smallest noise.

    python method1_noise_optimization/attack_imnet.py
    python method1_noise_optimization/attack_imnet.py --grey-levels 1

After figure 5 of Szegedy et al. (2014).  Rounded to a file so little noise is
gone: --save-images searches for the nearest 8-bit images that are the target,
--method survive for noise that outlives JPEG and scaling.  More of it stands
in method1_noise_optimization/README.md.

reads   photographs, and the network's weights
writes  OUTPUT.csv, a row for each photograph (columns: common/README.md), and
        OUTPUT.npz with the first nine, for visualize_adv_examples.py
"""

import functools

from common import command, files
from common.networks import own_model
from common.run import photo_run
from method1_noise_optimization import attack, photo_noise

grey_levels = command.number(1, 255, "a number of grey levels from 1 to 255", whole=True)


def main(argv=None):
    args = parse(argv)
    network, target = photo_run.network_of(args), args.target
    if target not in photo_noise.GOALS:
        target = network.target(target)
    goal = photo_noise.GOALS.get(target) or f"target {network.label(target)}"
    seed = args.seed if target == "random" else None
    settings = {"script": "attack_imnet", "target": target, "seed": seed}
    how = {"max_steps": args.max_steps, "confidence": args.confidence}
    if args.grey_levels:
        how["levels"] = args.grey_levels
        settings["eps"] = args.grey_levels / 255
        search, to_8_bits = photo_noise.few_levels, None
        title = f"grey levels changed by {args.grey_levels} at most"
    elif args.method == "survive":
        search, to_8_bits = photo_noise.survive, photo_noise.as_it_is
        settings["method"] = title = "survive"
    else:
        how["method"] = title = args.method
        search, to_8_bits = attack.search, photo_noise.smallest_file

    def target_of(path):
        return target if seed is None else photo_noise.random_target(path, seed, network.classes)

    if target == "any":
        how["targeted"], target_of = False, None
        if args.method == "minimal":
            to_8_bits = photo_noise.smallest_file_of_any
    if to_8_bits:
        to_8_bits = functools.partial(to_8_bits, confidence=args.confidence)
    if args.confidence:
        goal += f", probability above {args.confidence}"
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
    target = "index, synset, name, random or any"
    parser.add_argument("--target", metavar="CLASS", default="ostrich", help=target)
    command.add_seed(parser, "of random targets")
    how = parser.add_mutually_exclusive_group()
    said = "minimal, lbfgs, sgd or survive"
    method = {"choices": photo_noise.METHODS, "metavar": "M", "help": said}
    how.add_argument("--method", default="minimal", **method)
    few = "move as few values as can be, by N of 255 at most"
    how.add_argument("--grey-levels", type=grey_levels, metavar="N", help=few)
    sure = "least probability of the target, or other class"
    parser.add_argument("--confidence", type=command.probability, metavar="P", help=sure)
    steps = "steps (default: 100, sgd 1000, survive 200, lbfgs 50 at each c)"
    command.option(parser, "--max-steps", command.positive_int, None, steps, metavar="N")
    folder = "method1_noise_optimization"
    output = "default: results_imnet_{model}_{method}.csv here"
    photo_run.add_arguments(parser, batch_size=photo_noise.BATCH_SIZE, output=output)
    args = parser.parse_args(argv)
    if args.target == "any" and (args.grey_levels or args.method not in ("minimal", "survive")):
        parser.error("--target any goes with --method minimal or survive")
    method = f"grey_levels_{args.grey_levels}" if args.grey_levels else args.method
    if args.max_steps is None:
        args.max_steps = photo_noise.MAX_STEPS["grey levels" if args.grey_levels else method]
    name = f"results_imnet_{own_model.stem(args.model)}_{method}.csv"
    args.output = args.output or files.ROOT / folder / name
    return args


if __name__ == "__main__":
    command.run(main)
