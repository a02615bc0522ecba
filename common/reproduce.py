"""Run everything in order and draw every figure.

    python common/reproduce.py                 the steps below; models already trained are kept
    python common/reproduce.py --full          and the longer ones, marked *
    python common/reproduce.py --retrain       train them again
    python common/reproduce.py --only STEP     one step (its name as the list below shows it)

reads   common/mnist.npz
writes  what the scripts write: common/weights, common/5k_samples.npz, results, img/*.png
"""

import importlib
import multiprocessing
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from common import command, files
from common.command import Failure
from common.networks import mnist

METHOD1 = "method1_noise_optimization"
PHOTOGRAPHS = str(files.ROOT / METHOD1 / "results_imnet_efficientnet_lite0_{}.npz")
# A file that the network is more than half sure of.
GREY_LEVEL = ("--grey-levels", "1", "--confidence", "0.5")
# name, the script's module, its arguments
STEPS = (
    ("generate_5k", "common.generate_5k", ()),
    ("train_softmax", "logreg_softmax.train", ()),
    ("train_mlp", "common.train_mnist", ("--model", "mlp")),
    ("train_cnn", "common.train_mnist", ("--model", "cnn")),
    ("my_digits", "common.my_digits", ()),
    *(
        (f"{script}_{model}", f"method2_fgsm.{script}", ("--model", model))
        for script in ("epsilon", "two_to_six")
        for model in mnist.NAMES
    ),
    *(
        (f"mnist_fast_gradient_{model}", "method2_fgsm.mnist_fast_gradient", ("--model", model))
        for model in mnist.NAMES
    ),
    *(
        (
            f"visualize_mnist_{model}",
            "method2_fgsm.visualize_mnist",
            (str(files.ROOT / "method2_fgsm" / f"results_mnist_{model}.npz"),),
        )
        for model in mnist.NAMES
    ),
    ("accuracy_vs_epsilon", "method2_fgsm.accuracy_vs_epsilon", ()),
    ("imnet_fast_gradient", "method2_fgsm.imnet_fast_gradient", ()),
    ("visualize_imnet", "method2_fgsm.visualize_imnet", ()),
    ("exact", "logreg_softmax.exact", ()),
    ("attack_mnist_sgd", f"{METHOD1}.attack_mnist", ()),
    ("visualize_sgd", f"{METHOD1}.visualize_adv_examples", ()),
    ("attack_mnist_minimal", f"{METHOD1}.attack_mnist", ("--method", "minimal", "--limit", "500")),
    (
        "visualize_minimal",
        f"{METHOD1}.visualize_adv_examples",
        (str(files.ROOT / METHOD1 / "results_mlp_minimal.npz"),),
    ),
    ("attack_imnet_ostrich", f"{METHOD1}.attack_imnet", ()),
    ("visualize_ostrich", f"{METHOD1}.visualize_adv_examples", (PHOTOGRAPHS.format("minimal"),)),
    ("attack_imnet_grey_level", f"{METHOD1}.attack_imnet", GREY_LEVEL),
    (
        "visualize_grey_level",
        f"{METHOD1}.visualize_adv_examples",
        (PHOTOGRAPHS.format("grey_levels_1"),),
    ),
    ("compare_methods", f"{METHOD1}.compare_methods", ()),
    ("every_pair", f"{METHOD1}.every_pair", ()),
)
# The papers' own experiments, which take longer: with --full.
SZEGEDY = {
    "fc10": (),
    "fc100-100-10_sigmoid": ("100", "100"),
    "fc200-200-10_sigmoid": ("200", "200"),
}
FULL_STEPS = (
    ("every_pair_linf", f"{METHOD1}.every_pair", ("--norm", "linf")),
    ("adversarial_training", "method2_fgsm.adversarial_training", ()),
    ("robust_training", "method2_fgsm.adversarial_training", ("--attack", "pgd")),
    (
        "certified_training_mlp",
        "method2_fgsm.adversarial_training",
        ("--attack", "bounds", "--model", "mlp"),
    ),
    ("certified_training", "method2_fgsm.adversarial_training", ("--attack", "bounds")),
    ("robustness", "method2_fgsm.robustness", ()),
    ("robustness_vs_epsilon", "method2_fgsm.robustness_vs_epsilon", ()),
    ("certified", "method2_fgsm.certified", ()),
    ("robust_gradients", "method2_fgsm.robust_gradients", ()),
    ("rubbish", "method2_fgsm.rubbish", ()),
    *(
        (f"train_{model}", "common.train_mnist", ("--hidden", *hidden))
        for model, hidden in SZEGEDY.items()
    ),
    ("szegedy_table", f"{METHOD1}.szegedy_table", ()),
    ("transfer", f"{METHOD1}.transfer", ()),
    ("distances", f"{METHOD1}.distances", ()),
)
# Last of all, the results that the steps before it wrote; alone, all there are.
CHECK = ("check_results", "common.check_results", ())
# The scripts that run their batches side by side.  They want TensorFlow with one thread for each
# operation (engine.py), the others as many as there are cores, and a process has one or the other.
SIDE_BY_SIDE = (
    "method2_fgsm.mnist_fast_gradient",
    "method2_fgsm.imnet_fast_gradient",
    f"{METHOD1}.attack_mnist",
    f"{METHOD1}.attack_imnet",
)
# The steps that are not needed once the weights are there.
TRAINING = {f"train_{model}": model for model in (*mnist.NAMES, *SZEGEDY)}


def trained(model):
    """Whether a model's weights are there and fit it."""
    try:
        mnist.load(model)
    except Failure:
        return False
    return True


def main(argv=None):
    listed = [step[0] for step in STEPS] + [f"{step[0]} *" for step in FULL_STEPS] + [CHECK[0]]
    parser = command.Parser((__doc__ or "") + "\nsteps\n  " + "\n  ".join(listed))
    names = [step[0] for step in (*STEPS, *FULL_STEPS, CHECK)]
    parser.add_argument("--full", action="store_true", help="run the longer steps too")
    parser.add_argument("--retrain", action="store_true", help="train the models again")
    parser.add_argument("--only", choices=names, metavar="STEP", help="run one step")
    args = parser.parse_args(argv)
    if args.only:
        steps = [step for step in (*STEPS, *FULL_STEPS, CHECK) if step[0] == args.only]
    else:
        steps = [*STEPS, *(FULL_STEPS if args.full else ()), CHECK]

    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=interrupted_by_parent) as child:
        try:
            return run(steps, args.retrain, child)
        except BrokenProcessPool as error:
            raise Failure("a step was killed: is memory short?") from error
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def interrupted_by_parent():
    """Have this process end with its parent's Ctrl-C, without a line of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: command.leave())


def run(steps, retrain, child):
    """Run steps in order and print how long each took; returns the paths that they wrote.

    child: an executor with a process for those that run their batches side by side.
    """
    written, seconds = [], []
    for number, (name, module, arguments) in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] {name}", flush=True)
        start = time.perf_counter()
        if name in TRAINING and not retrain and trained(TRAINING[name]):
            print(f"{files.show(mnist.weights_path(TRAINING[name]))} is there: not trained again")
        else:
            if module == CHECK[1]:
                # An older file may come from other weights: what was written now is checked.
                arguments = [str(path) for path in written if path.match("method*/results_*.npz")]
            script = importlib.import_module(module)
            if module in SIDE_BY_SIDE:
                written += child.submit(script.main, list(arguments)).result()
            else:
                written += script.main(list(arguments))
        seconds.append(time.perf_counter() - start)

    print("\nstep                        seconds")
    for (name, _, _), taken in zip(steps, seconds, strict=True):
        print(f"{name:28}{taken:7.1f}")
    print(f"{'in all':28}{sum(seconds):7.1f}\n")
    return written


if __name__ == "__main__":
    command.run(main)
