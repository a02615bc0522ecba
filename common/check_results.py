"""Check a file of saved adversarial examples, anyone's, against what it claims.

    python common/check_results.py                          all results in the method folders
    python common/check_results.py RESULTS.npz --model mine.keras

No noise is larger than epsilon; originals were classified correctly, and targets
are as stated, and never the label; indices name digits of MNIST, each once; signs
give the noise, but for one pixel in a thousand, whose gradient may have rounded to
zero; and freshly loaded weights say the same, or two outputs tie: they differ by
less than 1e-4 of the largest.  The weights are ours, for photographs those that pip
installs; a network of your own is given by --model.
Prints PASS, with exit code 0, or FAIL and every violation, with exit code 1.

reads   method*/results_*.npz or those named, common/mnist.npz, the weights
writes  nothing
"""

from pathlib import Path

import numpy as np

from common import command, data, files, results
from common.command import Failure
from common.networks import efficientnet_lite, imagenet, keras_file, mnist, own_model
from common.search import logits

TIE = 1e-4  # share of an image's largest output
ROUNDED_SIGNS = 1e-3  # share of an image's pixels


def violations(found, model=None, judge=None):
    """What is wrong with results, as `results.load` gives them, and the Keras models that are said
    to have made them, as `own_model.load` gives them: a list of lines."""
    lines = []
    for what, bad in by_row(found, model, judge or model):
        bad = bad.any(axis=tuple(range(1, bad.ndim)))
        if bad.any():
            lines.append(f"{what} in {bad.sum()} of {len(bad)} rows, first in row {bad.argmax()}")
    return lines


def by_row(found, model, judge):
    """Yield what may be wrong, and bool (n, ...) where it is."""
    xs, noises, y = found["xs"], found["noises"], found["y_trues"]
    eps, target = (found["config"].get(name) for name in ("eps", "target"))
    if eps is not None:
        if not isinstance(eps, float | int) or not 0 <= eps <= 1:
            yield f"eps {eps!r} is no size from 0 to 1", np.ones(len(xs), bool)
            eps = 1.0
        yield f"noise larger than eps {eps:g}", np.abs(noises) > eps + results.ROUNDING

    photographs = "paths" in found["config"]  # of which the first are kept, whatever came of them
    if not photographs:
        yield "misclassified before the attack", found["y_preds"] != y
    if "y_targets" in found:
        if not photographs:
            yield "the target is the label", found["y_targets"] == y
        if isinstance(target, int):
            yield f"y_targets is not {target}", found["y_targets"] != target

    if "indices" in found:
        (images, labels), indices = data.load("test"), found["indices"]
        inside = indices < len(images)
        yield f"indices beyond the {len(images)} test digits", ~inside
        first = np.isin(np.arange(len(xs)), np.unique(indices, return_index=True)[1])
        yield "an image that was there before (indices)", ~first
        indices = np.where(inside, indices, 0)
        yield "y_trues is not MNIST's label", inside & (y != labels[indices])
        same = [np.array_equal(*pair) for pair in zip(xs, images[indices], strict=True)]
        yield "xs is not the image that indices names", inside & ~np.array(same, bool)

    if eps is not None and "signs" in found:
        yield "signs other than -1, 0 and 1", ~np.isin(found["signs"], (-1, 0, 1))
        step = np.float32(eps if target is None else -eps) * found["signs"]
        differs = np.abs(noises - (np.clip(xs + step, 0, 1) - xs)) > results.ROUNDING
        many = differs.mean(axis=tuple(range(1, xs.ndim))) > ROUNDED_SIGNS
        yield f"noises are not the sign step of eps {eps:g}", many

    if model is not None:
        for name, x in (("y_preds", xs), ("y_preds_adversarial", xs + noises)):
            outputs, labels = mnist.predict(judge, x), found[name]
            known = labels < outputs.shape[1]
            behind = outputs.max(axis=1) - outputs[np.arange(len(x)), np.where(known, labels, 0)]
            tie = max(TIE, logits.rounding(judge)) * np.abs(outputs).max(axis=1)
            yield f"the model does not say {name}", ~known | (behind > tie)
        if (p := found.get("confidences_adversarial")) is not None:
            z = mnist.predict(model, xs + noises)
            tie = max(TIE, logits.rounding(model)) * np.abs(z).max(axis=1)
            yield "the model is not as sure", np.abs(mnist.softmax(z).max(axis=1) - p) > tie


def model_of(config, shape, name=None):
    """The models that made predictions on images of a shape, as `own_model.load` gives them: none
    where they are not at hand, or what is asked for cannot have made them."""
    said, pixels = str(config.get("model")), config.get("pixels")
    if isinstance(name, Path) and pixels in keras_file.KINDS:
        return keras_file.load(name, shape, pixels)
    if shape == (data.SIDE, data.SIDE) and pixels is None and mnist.known(str(name or said)):
        return (mnist.load(name or said),)
    if said == efficientnet_lite.NAME and name is None and config.get("weights") is None:
        return (imagenet.load(said),)
    return ()


def report(path, name=None):
    """Check one file, with the model of that name; returns how many violations there are."""
    found = results.load(path, remedy="name a file that an attack script wrote")
    said, path = found["config"].get("model"), files.show(path)
    models, kept = model_of(found["config"], found["xs"].shape[1:], name), ""
    if not models:
        kept = ", whose predictions are not recomputed"
        if name:
            raise Failure(f"{path} holds results of {said}, not of {name}: name that, or none")
    print(f"{path}: {len(found['xs'])} images, attacks on {name or said}{kept}")
    lines = violations(found, *models)
    print(*lines, "FAIL" if lines else "PASS", sep="\n", flush=True)
    return len(lines)


def main(argv=None):
    parser = command.Parser(__doc__)
    option, path, ours = command.option, command.path, "default: all of ours"
    option(parser, "results", path, None, ours, nargs="*", metavar="RESULTS.npz")
    option(parser, "--model", own_model.argument, None, "default: what each file says")
    args = parser.parse_args(argv)
    paths = args.results or sorted(files.ROOT.glob("method*/results_*.npz"))
    if not paths:
        raise Failure("no method*/results_*.npz: name a file, or run common/reproduce.py first")
    counts = {files.show(path): report(path, args.model) for path in paths}
    if count := sum(counts.values()):
        failed = ", ".join(path for path in counts if counts[path])
        raise Failure(f"{failed} failed: {count} violation{'s' * (count > 1)}")
    return []


if __name__ == "__main__":
    command.run(main)
