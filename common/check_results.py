"""Check a file of saved adversarial examples, anyone's, against what it claims.

    python common/check_results.py                          all results in the method folders
    python common/check_results.py method2_fgsm/results_mnist_mlp.npz
    python common/check_results.py RESULTS.npz --model cnn --weights my_cnn.weights.h5
    python common/check_results.py RESULTS.npz --model mine.keras

Reads each file (its format: common/results.py) and looks at

    format        the arrays, their types and rows; xs and xs + noises lie in [0, 1]
    settings      a model that is known, an epsilon from 0 to 1, no failure left untold
    epsilon       no pixel of the noise is larger
    labels        classes; originals classified correctly; targets as stated, never the label
    dataset       where indices are stored: images and labels are MNIST's, none is there twice
    sign step     where signs are stored: noises are clip(x ± eps * sign) - x, but for one pixel in
                  a thousand, whose gradient may have rounded to zero
    confidences   from 0 to 1
    predictions   freshly loaded weights say the same.  Where two classes are within 0.001 logits
                  of each other, either will do: minimal noise ends there, and rounding decides

and prints PASS, with exit code 0, or FAIL and every violation, with exit code 1.  Predictions on
photographs are recomputed if their network's weights are installed by pip, or given by --weights;
those of a network of your own, if its .keras file is given by --model.  To give others is an error.

reads   method*/results_*.npz or those named, common/mnist.npz, the weights
writes  nothing
"""

import json
from pathlib import Path

import numpy as np

from common import command, data, files, results
from common.command import Failure
from common.networks import efficientnet_lite, imagenet, keras_file, mnist, own_model

CHECKS = ("settings", "epsilon", "labels", "dataset", "sign step", "confidences", "predictions")
TIE = 1e-3  # logits
ROUNDED_SIGNS = 1e-3  # share of an image's pixels


def check(found, model=None):
    """Every check by name: a dict of lists of violations, None where a check does not apply.

    found: what `results.load` returns.  model: the Keras model said to have made the predictions.
    """
    config, outcome = found["config"], dict.fromkeys(CHECKS)
    eps = config.get("eps")
    sized = isinstance(eps, float | int) and 0 <= eps <= 1
    outcome["settings"] = list(settings(config, len(found["xs"]), is_digits(found), sized))
    for name, bad, what in by_row(found, eps if sized else None, model):
        lines = outcome[name] = outcome[name] or []
        bad = bad.any(axis=tuple(range(1, bad.ndim)))
        if bad.any():
            lines.append(f"{what} in {bad.sum()} of {len(bad)} rows, first in row {bad.argmax()}")
    return outcome


def is_own(found):
    """Whether they are results of a network of one's own."""
    return found["config"].get("pixels") in keras_file.KINDS


def is_digits(found):
    return not is_own(found) and found["xs"].shape[1:] == (data.SIDE, data.SIDE)


def settings(config, count, digits, sized):
    model, eps, left_out = (config.get(name) for name in ("model", "eps", "left_out"))
    if not isinstance(model, str) or (digits and not mnist.known(model)):
        yield f"the config's model is {model!r}, none that is known"
    if eps is not None and not sized:
        yield f"the config's eps is {eps!r}, not a size from 0 to 1"
    if config.get("full_test_set") and left_out != 10000 - count:
        yield f"{count} images and {left_out} left out are not the 10,000 of the test set"


def by_row(found, eps, model):
    """Yield a check's name, bool (n, ...) where a row is not as it should be, and what is wrong."""
    xs, noises, target = found["xs"], found["noises"], found["config"].get("target")
    if eps is not None:
        yield "epsilon", np.abs(noises) > eps + results.ROUNDING, f"noise larger than eps {eps:g}"

    classes = data.CLASSES if is_digits(found) else imagenet.CLASSES
    if is_own(found):
        names = found["config"].get("names")
        classes = len(names) if isinstance(names, list) else np.inf
    for name in (*results.LABELS, "y_targets"):
        if name in found:
            yield "labels", found[name] >= classes, f"{name} beyond class {classes - 1}"
    photographs = "paths" in found["config"]  # of which the first are kept, whatever came of them
    if not photographs:
        yield "labels", found["y_preds"] != found["y_trues"], "misclassified before the attack"
    if "y_targets" in found:
        if not photographs:
            yield "labels", found["y_targets"] == found["y_trues"], "the target is the label"
        if isinstance(target, int):
            yield "labels", found["y_targets"] != target, f"y_targets is not {target}"

    if is_digits(found) and "indices" in found:
        (x, y), indices = data.load("test"), found["indices"]
        outside = indices >= len(x)
        yield "dataset", outside, f"indices beyond the {len(x)} test digits"
        repeated = np.ones(len(indices), bool)
        repeated[np.unique(indices, return_index=True)[1]] = False
        yield "dataset", repeated, "an image that was there before (indices)"
        indices = np.where(outside, 0, indices)
        other = ~outside & (found["y_trues"] != y[indices])
        yield "dataset", other, "y_trues is not MNIST's label"
        other = ~outside & (xs != x[indices]).any(axis=(1, 2))
        yield "dataset", other, "xs is not the test image that indices names"

    if eps is not None and "signs" in found:
        signs = found["signs"] if found["signs"].shape == xs.shape else np.full_like(xs, np.nan)
        yield "sign step", ~np.isin(signs, (-1, 0, 1)), "signs other than -1, 0 and 1"
        step = np.float32(eps if target is None else -eps)
        differs = np.abs(noises - (np.clip(xs + step * signs, 0, 1) - xs)) > results.ROUNDING
        many = differs.mean(axis=tuple(range(1, xs.ndim))) > ROUNDED_SIGNS
        yield "sign step", many, f"noises are not the sign step of eps {eps:g}"

    for name, array in found.items():
        if name.startswith("confidences"):
            yield "confidences", (array < 0) | (array > 1), f"{name} outside [0, 1]"

    images = {"y_preds": xs, "y_preds_adversarial": xs + noises} if model is not None else {}
    for name, x in images.items():
        logits = mnist.predict(model, x)
        known = found[name] < logits.shape[1]
        claimed = logits[np.arange(len(x)), np.where(known, found[name], 0)]
        far = ~known | (logits.max(axis=1) - claimed > TIE)
        yield "predictions", far, f"the model does not say {name}"


def model_of(found, name=None, weights=None):
    """The model that made the predictions, if `name` and `weights` allow it and it is at hand."""
    config = found["config"]
    said = config.get("model")
    if is_own(found):
        fits = isinstance(name, Path) and weights is None
        return keras_file.load(name, found["xs"].shape[1:], config["pixels"])[1] if fits else None
    if is_digits(found):
        name = name or said
        return mnist.load(name, weights) if isinstance(name, str) and mnist.known(name) else None
    if name is not None or said not in imagenet.NAMES:
        return None
    same = config.get("weights") == (weights and files.sha256(weights))
    lite = said == efficientnet_lite.NAME and efficientnet_lite.installed()
    here = weights is not None or lite  # the others would be downloaded
    return imagenet.load(said, weights) if same and here else None


def report(path, name=None, weights=None):
    """Check one file, with the model of that name and weights; returns the violations."""
    found = files.read_npz(path, remedy="name a file that an attack script wrote")
    outcome = {"format": results.problems(found)}
    if outcome["format"]:
        print(f"{files.show(path)}: not a result file")
    else:
        found["config"] = json.loads(str(found["config"]))
        kind = "digits" if is_digits(found) else "images" if is_own(found) else "photographs"
        said, model = found["config"].get("model"), model_of(found, name, weights)
        asked = " with ".join(str(given) for given in (name, weights) if given)
        if model is None and asked:
            raise Failure(
                f"{files.show(path)} holds results of {said}, not of {asked}: give what made them, "
                "or leave it out"
            )
        kept = "" if model is not None else ", whose predictions are not recomputed"
        print(f"{files.show(path)}: {len(found['xs'])} {kind}, attacks on {name or said}{kept}")
        outcome |= check(found, model)

    for check_name, lines in outcome.items():
        state = "not checked" if lines is None else "wrong" if lines else "ok"
        print(f"  {check_name:12}  {state}")
    violations = [line for lines in outcome.values() for line in lines or ()]
    for line in violations:
        print(f"  violation: {line}")
    print("FAIL" if violations else "PASS", flush=True)
    return violations


def main(argv=None):
    parser = command.Parser(__doc__)
    parser.add_argument(
        "results", nargs="*", type=command.path, metavar="RESULTS.npz", help="default: all of ours"
    )
    parser.add_argument("--model", type=own_model.argument, help="default: what each file says")
    parser.add_argument("--weights", type=command.path, help="default: those in common/weights")
    args = parser.parse_args(argv)
    paths = args.results or sorted(files.ROOT.glob("method*/results_*.npz"))
    if not paths:
        raise Failure("no method*/results_*.npz: name a file, or run common/reproduce.py first")
    violations = {files.show(path): report(path, args.model, args.weights) for path in paths}
    count = sum(map(len, violations.values()))
    if count:
        failed = [path for path, found in violations.items() if found]
        raise Failure(f"{', '.join(failed)} failed: {count} violation{'s' * (count > 1)}")
    return []


if __name__ == "__main__":
    command.run(main)
