"""Check a file of saved adversarial examples, anyone's, against what it claims.

    python common/check_results.py                          all results in the method folders
    python common/check_results.py method2_fgsm/results_mnist_mlp.npz
    python common/check_results.py RESULTS.npz --model cnn --weights my_cnn.weights.h5

Reads each file (its format: common/results.py) and looks at

    format        all arrays are there, of the right types and as many rows; every original and
                  every adversarial image, xs + noises, lies in [0, 1]
    settings      the config says model and method; epsilon is a pixel size
    epsilon       no pixel of the noise is larger than the stated epsilon
    labels        labels are classes; originals are those classified correctly; a target is not
                  the image's own label, and is the one that the config states
    dataset       where indices are stored: no image twice, and images and labels are those of
                  the MNIST test set
    sign step     where the signs are stored (photographs): noises are clip(x ± eps * sign) - x,
                  but for one pixel in a thousand, whose gradient may have rounded to zero
    confidences   are between 0 and 1
    predictions   freshly loaded weights say of xs and of xs + noises what the file says.  Where
                  two classes are within 0.001 logits of each other, either will do: adversarial
                  noise of minimal size ends on such a boundary, and rounding decides

and prints PASS, with exit code 0, or FAIL and every violation, with exit code 1.  Predictions on
photographs are recomputed where the network's weights are at hand without a download: installed
by pip, or the file of --weights from which the results were made.  Else the first line says so.

reads   method*/results_*.npz or those named, common/mnist.npz,
        common/weights/{model}.weights.h5
writes  nothing
"""

import numpy as np

from common import command, data, files, models, results
from common.command import Failure
from common.imagenet import efficientnet_lite, networks

TIE = 1e-3  # logits
ROUNDED_SIGNS = 1e-3  # share of an image's pixels
IMAGENET_CLASSES = 1000
NOT_CHECKED = None


def check(found, model=None):
    """Every check by name: a dict of lists of violations, or `NOT_CHECKED` where it cannot apply.

    found: what `results.load` returns.  model: the Keras model that is said to have made the
    predictions, or None.
    """
    digits = is_digits(found)
    eps = found["config"].get("eps")
    sized = is_pixel_size(eps)
    checks = {
        "settings": settings(found["config"], len(found["xs"]), digits),
        "epsilon": size_of_noise(found, eps) if sized else NOT_CHECKED,
        "labels": labels(found, data.CLASSES if digits else IMAGENET_CLASSES),
        "dataset": dataset(found) if digits and "indices" in found else NOT_CHECKED,
        "sign step": sign_step(found, eps) if sized and "signs" in found else NOT_CHECKED,
        "confidences": confidences(found),
        "predictions": predictions(found, model) if model is not None else NOT_CHECKED,
    }
    return {name: lines and list(lines) for name, lines in checks.items()}


def is_digits(found):
    return found["xs"].shape[1:] == (data.SIDE, data.SIDE)


def is_pixel_size(eps):
    return isinstance(eps, float | int) and 0 <= eps <= 1


def rows(bad, what):
    """One violation, with how many rows it concerns and the first of them, or none."""
    bad = bad.reshape(len(bad), -1).any(axis=1)
    if bad.any():
        yield f"{what} in {bad.sum()} of {len(bad)} rows, first in row {bad.argmax()}"


def settings(config, count, digits):
    if not isinstance(config.get("model"), str):
        yield "the config does not say which model"
    elif digits and not models.known(config["model"]):
        yield f"the config names an unknown model, {config['model']!r}"
    if not isinstance(config.get("versions"), dict):
        yield "the config lacks the package versions"
    eps, left_out, paths = (config.get(name) for name in ("eps", "left_out", "paths"))
    if eps is not None and not is_pixel_size(eps):
        yield f"the config's eps is {eps!r}, not a size from 0 to 1"
    if left_out is not None and not (isinstance(left_out, int) and left_out >= 0):
        yield f"the config's left_out is {left_out!r}, not a count"
    elif left_out is not None and config.get("full_test_set") and count + left_out != 10000:
        yield f"{count} images and {left_out} left out are not the 10,000 of the test set"
    if paths is not None and not (isinstance(paths, list) and len(paths) == count):
        yield f"the config does not name {count} paths, one for each image"


def size_of_noise(found, eps):
    too_large = np.abs(found["noises"]) > eps + results.ROUNDING
    yield from rows(too_large, f"noise larger than eps {eps:g}")


def labels(found, classes):
    for name in (*results.LABELS, "y_targets"):
        if name in found:
            yield from rows(found[name] >= classes, f"{name} beyond class {classes - 1}")
    wrong = found["y_preds"] != found["y_trues"]
    yield from rows(wrong, "an image misclassified before the attack (y_preds)")
    if "y_targets" in found:
        yield from rows(found["y_targets"] == found["y_trues"], "the target is the label")
        target = found["config"].get("target")
        if isinstance(target, int):
            yield from rows(found["y_targets"] != target, f"y_targets is not {target}")


def dataset(found):
    x, y = data.load("test")
    indices = found["indices"]
    outside = indices >= len(x)
    yield from rows(outside, f"indices beyond the {len(x)} test digits")
    repeated = np.ones(len(indices), bool)
    repeated[np.unique(indices, return_index=True)[1]] = False
    yield from rows(repeated, "an image that was there before (indices)")
    indices = np.where(outside, 0, indices)
    yield from rows((found["y_trues"] != y[indices]) & ~outside, "y_trues is not MNIST's label")
    differs = (found["xs"] != x[indices]).any(axis=(1, 2)) & ~outside
    yield from rows(differs, "xs is not the test image that indices names")


def sign_step(found, eps):
    signs = found["signs"]
    if signs.shape != found["xs"].shape:
        yield f"signs have shape {signs.shape}, not {found['xs'].shape}"
        return
    yield from rows(~np.isin(signs, (-1, 0, 1)), "signs other than -1, 0 and 1")
    step = np.float32(eps if found["config"].get("target") is None else -eps)
    expected = np.clip(found["xs"] + step * signs, 0, 1) - found["xs"]
    differs = (np.abs(found["noises"] - expected) > results.ROUNDING).reshape(len(signs), -1)
    many = differs.mean(axis=1) > ROUNDED_SIGNS
    yield from rows(many, f"noises are not the sign step of eps {eps:g}")


def confidences(found):
    for name, array in found.items():
        if name.startswith("confidences"):
            yield from rows((array < 0) | (array > 1), f"{name} outside [0, 1]")


def predictions(found, model):
    images = {"y_preds": found["xs"], "y_preds_adversarial": found["xs"] + found["noises"]}
    for name, x in images.items():
        logits = models.predict(model, x)
        known = found[name] < logits.shape[1]
        claimed = logits[np.arange(len(x)), np.where(known, found[name], 0)]
        behind = logits.max(axis=1) - claimed
        yield from rows((behind > TIE) | ~known, f"the model does not say {name}")


def network_of(config, weights):
    """The network that attacked photographs, where its weights are at hand, or None.

    weights: the file of the weights that were given to the attack by their own file.
    """
    name = config.get("model")
    if config.get("weights") is not None:
        if weights is None or files.sha256(weights) != config["weights"]:
            return None
        return networks.load(name, weights) if name in networks.NAMES else None
    return networks.load(name) if efficientnet_lite.installed(name) else None


def report(path, name=None, weights=None):
    """Check one file and print the outcome; returns the violations.

    name, weights: the model and the file of its weights, where they are not what the file says.
    """
    arrays = files.read_npz(path, remedy="name a file that an attack script wrote")
    outcome = {"format": results.problems(arrays)}
    if outcome["format"]:
        print(f"{files.show(path)}: not a result file")
    else:
        found, model = results.load(path), None
        name = name or found["config"].get("model")
        count = f"{files.show(path)}: {len(found['xs'])}"
        if not is_digits(found):
            model = network_of(found["config"], weights)
            kept = "" if model else ", whose predictions are not recomputed"
            print(f"{count} photographs, attacks on {found['config'].get('model')}{kept}")
        else:
            print(f"{count} digits, attacks on {name}")
            if isinstance(name, str) and models.known(name):
                model = models.load(name, weights)
        outcome |= check(found, model)

    for check_name, lines in outcome.items():
        state = "not checked" if lines is NOT_CHECKED else "wrong" if lines else "ok"
        print(f"  {check_name:12}  {state}")
    violations = [line for lines in outcome.values() for line in lines or ()]
    for line in violations:
        print(f"  violation: {line}")
    print("FAIL" if violations else "PASS", flush=True)
    return violations


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "results",
        nargs="*",
        type=command.path,
        metavar="RESULTS.npz",
        help="the files to check (default: method*/results_*.npz)",
    )
    parser.add_argument(
        "--model", type=models.argument, help="the classifier (default: what each file says)"
    )
    parser.add_argument(
        "--weights",
        type=command.path,
        help="its weights (default: common/weights/{model}.weights.h5)",
    )
    args = parser.parse_args(argv)
    paths = args.results or sorted(files.ROOT.glob("method*/results_*.npz"))
    if not paths:
        raise Failure(
            "no method*/results_*.npz to check: run `python method2_fgsm/mnist_fast_gradient.py` "
            "first, or name a file"
        )

    violations = [report(path, args.model, args.weights) for path in paths]
    failed = [files.show(path) for path, found in zip(paths, violations, strict=True) if found]
    if failed:
        count = sum(map(len, violations))
        raise Failure(f"{', '.join(failed)} failed: {count} violation{'s' * (count > 1)}")
    return []


if __name__ == "__main__":
    command.run(main)
