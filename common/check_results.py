"""Check a file of saved adversarial examples, anyone's, against what it claims.

    python common/check_results.py                          all results in the method folders
    python common/check_results.py method2_fgsm/results_mnist_mlp.npz
    python common/check_results.py RESULTS.npz --model cnn --weights my_cnn.weights.h5
    python common/check_results.py RESULTS.npz --model mine.keras

Reads each file (its format: common/results.py) and looks at

    format        the arrays, their types and rows; xs and xs + noises lie in [0, 1]
    epsilon       no pixel of the noise is larger
    labels        originals classified correctly; targets as stated, never the label
    dataset       where indices are stored: images and labels are MNIST's, none is there twice
    sign step     where signs are stored: noises are clip(x ± eps * sign) - x, but for one pixel in
                  a thousand, whose gradient may have rounded to zero
    predictions   freshly loaded weights say the same.  Where two outputs of the network differ by
                  less than 1e-4 of the largest (1/256 and 1/32 in float16 and bfloat16), either
                  will do: minimal noise ends there, and rounding decides

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
from common.search import logits

CHECKS = ("epsilon", "labels", "dataset", "sign step", "predictions")
TIE = 1e-4  # share of an image's largest output
ROUNDED_SIGNS = 1e-3  # share of an image's pixels


def check(found, model=None):
    """Every check by name: a dict of lists of violations, None where a check does not apply.

    found: what `results.load` returns.  model: the Keras model said to have made the predictions.
    """
    outcome = dict.fromkeys(CHECKS)
    for name, bad, what in by_row(found, model):
        lines = outcome[name] = outcome[name] or []
        bad = bad.any(axis=tuple(range(1, bad.ndim)))
        if bad.any():
            lines.append(f"{what} in {bad.sum()} of {len(bad)} rows, first in row {bad.argmax()}")
    return outcome


def by_row(found, model):
    """Yield a check's name, bool (n, ...) where a row is not as it should be, and what is wrong."""
    xs, noises, y = found["xs"], found["noises"], found["y_trues"]
    eps, target = (found["config"].get(name) for name in ("eps", "target"))
    if eps is not None:
        sized = isinstance(eps, float | int) and 0 <= eps <= 1
        yield "epsilon", np.full(len(xs), not sized), f"eps {eps!r} is no size from 0 to 1"
        eps = eps if sized else np.nan
        yield "epsilon", np.abs(noises) > eps + results.ROUNDING, f"noise larger than eps {eps:g}"

    photographs = "paths" in found["config"]  # of which the first are kept, whatever came of them
    if not photographs:
        yield "labels", found["y_preds"] != y, "misclassified before the attack"
    if "y_targets" in found:
        if not photographs:
            yield "labels", found["y_targets"] == y, "the target is the label"
        if isinstance(target, int):
            yield "labels", found["y_targets"] != target, f"y_targets is not {target}"

    if "indices" in found:
        (images, labels), indices = data.load("test"), found["indices"]
        outside = indices >= len(images)
        yield "dataset", outside, f"indices beyond the {len(images)} test digits"
        repeated = np.ones(len(indices), bool)
        repeated[np.unique(indices, return_index=True)[1]] = False
        yield "dataset", repeated, "an image that was there before (indices)"
        indices = np.where(outside, 0, indices)
        yield "dataset", ~outside & (y != labels[indices]), "y_trues is not MNIST's label"
        same = [np.array_equal(*pair) for pair in zip(xs, images[indices], strict=True)]
        other = ~outside & ~np.array(same, bool)
        yield "dataset", other, "xs is not the test image that indices names"

    if eps is not None and "signs" in found:
        yield "sign step", ~np.isin(found["signs"], (-1, 0, 1)), "signs other than -1, 0 and 1"
        step = np.float32(eps if target is None else -eps) * found["signs"]
        differs = np.abs(noises - (np.clip(xs + step, 0, 1) - xs)) > results.ROUNDING
        many = differs.mean(axis=tuple(range(1, xs.ndim))) > ROUNDED_SIGNS
        yield "sign step", many, f"noises are not the sign step of eps {eps:g}"

    if model is not None:
        for name, x in (("y_preds", xs), ("y_preds_adversarial", xs + noises)):
            yield "predictions", ~says(model, x, found[name]), f"the model does not say {name}"


def says(model, x, labels):
    """Whether a model gives images their labels, or others that tie with these: bool (n,)."""
    outputs = mnist.predict(model, x)
    known = labels < outputs.shape[1]
    behind = outputs.max(axis=1) - outputs[np.arange(len(x)), np.where(known, labels, 0)]
    tie = max(TIE, logits.rounding(model)) * np.abs(outputs).max(axis=1)
    return known & (behind <= tie)


def model_of(found, name=None, weights=None):
    """The model that made the predictions, if `name` and `weights` allow it and it is at hand."""
    config, shape = found["config"], found["xs"].shape[1:]
    said, pixels = config.get("model"), config.get("pixels")
    if pixels in keras_file.KINDS:
        fits = isinstance(name, Path) and weights is None
        return keras_file.load(name, shape, pixels)[1] if fits else None
    if shape == (data.SIDE, data.SIDE):
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
    found = files.read_npz(path, ours=True, remedy="name a file that an attack script wrote")
    wrong = results.problem(found)
    outcome = {"format": [wrong] if wrong else []}
    if wrong:
        print(f"{files.show(path)}: not a result file")
    else:
        found["config"] = json.loads(str(found["config"]))
        said, model = found["config"].get("model"), model_of(found, name, weights)
        asked = " with ".join(str(given) for given in (name, weights) if given)
        if model is None and asked:
            raise Failure(
                f"{files.show(path)} holds results of {said}, not of {asked}: give what made them, "
                "or leave it out"
            )
        kept = "" if model is not None else ", whose predictions are not recomputed"
        print(f"{files.show(path)}: {len(found['xs'])} images, attacks on {name or said}{kept}")
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
    counts = {files.show(path): len(report(path, args.model, args.weights)) for path in paths}
    if count := sum(counts.values()):
        failed = ", ".join(path for path in counts if counts[path])
        raise Failure(f"{failed} failed: {count} violation{'s' * (count > 1)}")
    return []


if __name__ == "__main__":
    command.run(main)
