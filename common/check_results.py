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
photographs are not recomputed, since that takes the ImageNet networks: for them the first line
says so.

reads   method*/results_*.npz or those named, common/mnist.npz,
        common/weights/{model}.weights.h5
writes  nothing
"""

import numpy as np

from common import command, data, files, models, results
from common.command import Failure

TIE = 1e-3  # logits
ROUNDED_SIGNS = 1e-3  # share of an image's pixels
IMAGENET_CLASSES = 1000
NOT_CHECKED = None


def check(found, model=None):
    """Every check by name: a dict of lists of violations, or `NOT_CHECKED` where it cannot apply.

    found: what `results.load` returns.  model: the Keras model that is said to have made the
    predictions, or None.
    """
    digits = found["xs"].shape[1:] == (data.SIDE, data.SIDE)
    return {
        "settings": list(_settings(found["config"], len(found["xs"]), digits)),
        "epsilon": list(_epsilon(found)) if _eps(found) is not None else NOT_CHECKED,
        "labels": list(_labels(found, data.CLASSES if digits else IMAGENET_CLASSES)),
        "dataset": list(_dataset(found)) if digits and "indices" in found else NOT_CHECKED,
        "sign step": list(_sign_step(found)) if "signs" in found else NOT_CHECKED,
        "confidences": list(_confidences(found)),
        "predictions": list(_predictions(found, model)) if model is not None else NOT_CHECKED,
    }


def _eps(found):
    eps = found["config"].get("eps")
    return eps if isinstance(eps, float | int) and not isinstance(eps, bool) else None


def _rows(bad, what):
    """One violation, with how many rows it concerns and the first of them, or none."""
    bad = bad.reshape(len(bad), -1).any(axis=1)
    if bad.any():
        yield f"{what} in {bad.sum()} of {len(bad)} rows, first in row {bad.argmax()}"


def _settings(config, count, digits):
    if not isinstance(config.get("model"), str):
        yield "the config does not say which model"
    elif digits and not models.known(config["model"]):
        yield f"the config names an unknown model, {config['model']!r}"
    if not isinstance(config.get("versions"), dict):
        yield "the config lacks the package versions"
    eps = config.get("eps")
    if eps is not None and not (isinstance(eps, float | int) and 0 <= eps <= 1):
        yield f"the config's eps is {eps!r}, not a size from 0 to 1"
    left_out = config.get("left_out")
    if left_out is not None and not (isinstance(left_out, int) and left_out >= 0):
        yield f"the config's left_out is {left_out!r}, not a count"
    elif left_out is not None and config.get("full_test_set") and count + left_out != 10000:
        yield f"{count} images and {left_out} left out are not the 10,000 of the test set"
    paths = config.get("paths")
    if paths is not None and not (isinstance(paths, list) and len(paths) == count):
        yield f"the config does not name {count} paths, one for each image"


def _epsilon(found):
    eps = _eps(found)
    too_far = np.abs(found["noises"]) > eps + results.ROUNDING
    yield from _rows(too_far, f"noise larger than eps {eps:g}")


def _labels(found, classes):
    for name in (*results.LABELS, "y_targets"):
        if name in found:
            yield from _rows(found[name] >= classes, f"{name} beyond class {classes - 1}")
    yield from _rows(
        found["y_preds"] != found["y_trues"], "an image misclassified before the attack (y_preds)"
    )
    if "y_targets" in found:
        yield from _rows(found["y_targets"] == found["y_trues"], "the target is the label")
        target = found["config"].get("target")
        if isinstance(target, int):
            yield from _rows(found["y_targets"] != target, f"y_targets is not {target}")


def _dataset(found):
    x, y = data.load("test")
    indices = found["indices"]
    outside = indices >= len(x)
    yield from _rows(outside, f"indices beyond the {len(x)} test digits")
    first = np.zeros(len(indices), bool)
    first[np.unique(indices, return_index=True)[1]] = True
    yield from _rows(~first, "an image that was there before (indices)")
    inside = np.where(outside, 0, indices)
    yield from _rows((found["y_trues"] != y[inside]) & ~outside, "y_trues is not MNIST's label")
    differs = (found["xs"] != x[inside]).any(axis=(1, 2)) & ~outside
    yield from _rows(differs, "xs is not the test image that indices names")


def _sign_step(found):
    signs, eps = found["signs"], _eps(found)
    if signs.shape != found["xs"].shape:
        yield f"signs have shape {signs.shape}, not {found['xs'].shape}"
        return
    yield from _rows(~np.isin(signs, (-1, 0, 1)), "signs other than -1, 0 and 1")
    if eps is not None:
        step = -eps if found["config"].get("target") is not None else eps
        expected = np.clip(found["xs"] + np.float32(step) * signs, 0, 1) - found["xs"]
        apart = (np.abs(found["noises"] - expected) > results.ROUNDING).reshape(len(signs), -1)
        many = apart.mean(axis=1) > ROUNDED_SIGNS
        yield from _rows(many, f"noises are not the sign step of eps {eps:g}")


def _confidences(found):
    for name, array in found.items():
        if name.startswith("confidences"):
            yield from _rows((array < 0) | (array > 1), f"{name} outside [0, 1]")


def _predictions(found, model):
    classes = model.output_shape[-1]
    for name, x in (
        ("y_preds", found["xs"]),
        ("y_preds_adversarial", found["xs"] + found["noises"]),
    ):
        logits = models.predict(model, x.astype(np.float32))
        said = np.minimum(found[name], classes - 1)
        behind = logits.max(axis=1) - logits[np.arange(len(said)), said]
        yield from _rows(
            (behind > TIE) | (found[name] >= classes), f"the model does not say {name}"
        )


def report(path, name=None, weights=None):
    """Check one file and print the outcome; returns the violations.

    name, weights: the model and the file of its weights, where they are not what the file says.
    """
    shown = files.show(path)
    arrays = files.read_npz(path, remedy="name a file that an attack script wrote")
    outcome = {"format": list(results.flaws(arrays))}
    if outcome["format"]:
        print(f"{shown}: not a result file")
    else:
        found, model = results.load(path), None
        name = name or found["config"].get("model")
        if found["xs"].shape[1:] != (data.SIDE, data.SIDE):
            print(f"{shown}: {len(found['xs'])} photographs, whose predictions are not recomputed")
        else:
            print(f"{shown}: {len(found['xs'])} digits, attacks on {name}")
            if isinstance(name, str) and models.known(name):
                model = models.load(name, weights)
        outcome |= check(found, model)

    for check_name, violations in outcome.items():
        state = "not checked" if violations is NOT_CHECKED else "wrong" if violations else "ok"
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
