"""Run everything in order and draw every figure, the cheap ones first.

    python common/reproduce.py               the commands of STEPS in this file
    python common/reproduce.py --full        and those of FULL_STEPS, which take longer
    python common/reproduce.py --only exact  of all, those whose command holds this text

A model that is trained already is kept, unless --retrain is given.

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

STEPS = """
python common/generate_5k.py
python logreg_softmax/train.py
python method2_fgsm/epsilon.py --model softmax
python method2_fgsm/two_to_six.py --model softmax
python method2_fgsm/mnist_fast_gradient.py --model softmax
python method2_fgsm/visualize_mnist.py method2_fgsm/results_mnist_softmax.npz
python common/train_mnist.py --model mlp
python method2_fgsm/epsilon.py --model mlp
python method2_fgsm/two_to_six.py --model mlp
python method2_fgsm/mnist_fast_gradient.py --model mlp
python method2_fgsm/visualize_mnist.py method2_fgsm/results_mnist_mlp.npz
python common/page.py
python common/train_mnist.py --model cnn
python method2_fgsm/epsilon.py --model cnn
python method2_fgsm/two_to_six.py --model cnn
python method2_fgsm/mnist_fast_gradient.py --model cnn
python method2_fgsm/visualize_mnist.py method2_fgsm/results_mnist_cnn.npz
python common/my_digits.py
python method2_fgsm/accuracy_vs_epsilon.py
python method2_fgsm/imnet_fast_gradient.py
python method2_fgsm/visualize_imnet.py
python logreg_softmax/exact.py
python method1_noise_optimization/attack_mnist.py
python method1_noise_optimization/visualize_adv_examples.py
python method1_noise_optimization/attack_mnist.py --method minimal --limit 500
python method1_noise_optimization/visualize_adv_examples.py \
    method1_noise_optimization/results_mlp_minimal.npz
python method1_noise_optimization/attack_imnet.py
python method1_noise_optimization/visualize_adv_examples.py \
    method1_noise_optimization/results_imnet_efficientnet_lite0_minimal.npz
python method1_noise_optimization/attack_imnet.py --grey-levels 1 --confidence 0.5
python method1_noise_optimization/visualize_adv_examples.py \
    method1_noise_optimization/results_imnet_efficientnet_lite0_grey_levels_1.npz
python method1_noise_optimization/attack_mnist.py --method fewest --target any --limit 500
python method1_noise_optimization/visualize_adv_examples.py \
    method1_noise_optimization/results_mlp_fewest.npz
python method2_fgsm/turned.py
python method1_noise_optimization/compare_methods.py
python method1_noise_optimization/every_pair.py
""".strip().splitlines()
# The papers' own experiments, which take longer: with --full.
FULL_STEPS = """
python method1_noise_optimization/attack_imnet.py --method survive --treatments \
    --save-images method1_noise_optimization/results_survive
python method1_noise_optimization/visualize_adv_examples.py \
    method1_noise_optimization/results_imnet_efficientnet_lite0_survive.npz
python method1_noise_optimization/every_pair.py --norm linf
python method2_fgsm/adversarial_training.py
python method2_fgsm/adversarial_training.py --attack pgd
python method2_fgsm/adversarial_training.py --attack bounds --model mlp
python method2_fgsm/adversarial_training.py --attack bounds
python method2_fgsm/robustness.py
python method2_fgsm/robustness_vs_epsilon.py
python method2_fgsm/certified.py
python method2_fgsm/robust_gradients.py
python method2_fgsm/rubbish.py
python common/train_mnist.py --model cnn --augment
python method2_fgsm/turned.py --output img/turned_trained.png --models softmax mlp cnn \
    cnn_augmented cnn_adversarial cnn_robust mlp_certified strided_certified
python common/train_mnist.py --hidden
python common/train_mnist.py --hidden 100 100 --activation sigmoid
python common/train_mnist.py --hidden 200 200 --activation sigmoid
python method1_noise_optimization/szegedy_table.py
python method1_noise_optimization/transfer.py
python method1_noise_optimization/distances.py
""".strip().splitlines()
# Last of all: the results that the steps before it wrote; alone, all there are.
CHECK = "python common/check_results.py"
# These run batches side by side, with one thread an operation (engine.py), the others with as many
# as there are cores, and a process has one or the other.
SIDE_BY_SIDE = ("mnist_fast_gradient", "imnet_fast_gradient", "attack_mnist", "attack_imnet")
# The steps that are not needed once the weights are there.
FURTHER = "cnn_augmented", "fc10", "fc100-100-10_sigmoid", "fc200-200-10_sigmoid"
TRAINING = {mnist.train_command(model): model for model in (*mnist.NAMES, *FURTHER)}


def trained(model):
    """Whether a model's weights are there and fit it."""
    try:
        mnist.load(model)
    except Failure:
        return False
    return True


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument("--full", action="store_true", help="run the longer steps too")
    parser.add_argument("--retrain", action="store_true", help="train the models again")
    parser.add_argument("--only", metavar="TEXT", help="run the steps with this in their command")
    args = parser.parse_args(argv)
    steps = [*STEPS, *(FULL_STEPS if args.full or args.only else ()), CHECK]
    steps = [step for step in steps if (args.only or "") in step]
    if not steps:
        parser.error(f"--only {args.only}: no step has this in its command")

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
    for number, step in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] {step}", flush=True)
        start = time.perf_counter()
        _, path, *arguments = step.split()
        if step in TRAINING and not retrain and trained(TRAINING[step]):
            print(f"{files.show(mnist.weights_path(TRAINING[step]))} is there: not trained again")
        else:
            if step == CHECK:
                # An older file may come from other weights: what was written now is checked.
                arguments = [str(path) for path in written if path.match("method*/results_*.npz")]
            arguments = [
                str(files.ROOT / a) if a.endswith((".npz", ".png")) else a for a in arguments
            ]
            script = importlib.import_module(path.removesuffix(".py").replace("/", "."))
            if path.endswith(tuple(f"/{name}.py" for name in SIDE_BY_SIDE)):
                written += child.submit(script.main, arguments).result()
            else:
                written += script.main(arguments)
        seconds.append(time.perf_counter() - start)

    rows = zip([*steps, "in all"], [*seconds, sum(seconds)], strict=True)
    print()
    print(command.table(("step", "seconds"), [(step, f"{taken:.1f}") for step, taken in rows]))
    return written


if __name__ == "__main__":
    command.run(main)
