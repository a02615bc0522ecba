"""Input that no script should take, and outputs that none should write: one line, an exit code, and
nothing touched.

Each reader is tried with every kind of broken file; each script, for being wired to its readers,
with one.  (What is wrong with a photograph: test_photos.py.)
"""

import io
import json
import os
import pickle
import resource
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common import data, files, results
from common.command import Failure
from common.networks import imagenet, mnist, training
from common.run import photo_rows, photo_run
from method2_fgsm import certified


class Executed:
    """Unpickling this runs code, which ends the test."""

    def __reduce__(self):
        return pytest.fail, ("executed",)


def digits_results(path, count=3, **config):
    """Write valid results on digits, such as method 1 leaves."""
    xs = np.random.default_rng(0).uniform(size=(count, 28, 28)).astype(np.float32)
    labels = {name: np.arange(count) for name in ("y_trues", "y_preds", "indices")}
    labels |= {name: np.arange(count) + 1 for name in ("y_preds_adversarial", "y_targets")}
    config = {"model": "mlp", "eps": 0.5, "method": "minimal"} | config
    results.save(path, xs=xs, noises=(0.5 - xs) / 2, **labels, config=config)


def samples(path):
    """Write a valid file of five digits to attack."""
    images = np.zeros((5, 28, 28), np.float32)
    np.savez(path, images=images, labels=np.arange(5), indices=np.arange(5))


def altered(path, **changes):
    """Write the arrays of a file anew with some changed, or left out where the change is None."""
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays = {k: v for k, v in (arrays | changes).items() if v is not None}
    np.savez_compressed(path, **arrays)


def with_member(path, content):
    """Put `content` in the place of the bytes of the images."""
    altered(path, xs=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("xs.npy", content)


def header(shape):
    file = io.BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
    return file.getvalue()


def instead(make):
    """A way to break a file: something else in its place."""
    return lambda path: (path.unlink(), make(path))


# The whole content, the images alone, or what to do with the file.
BROKEN_FILES = {
    "empty": b"",
    "a pickle": pickle.dumps(Executed()),
    "a bare array": header((3, 28, 28)) + bytes(4 * 3 * 28 * 28),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 30),
    "a pipe": instead(os.mkfifo),
    "not there": Path.unlink,
    "a shape beyond memory": lambda path: with_member(path, header((10**14, 28, 28))),
    "images missing": None,
    "an array of objects": np.array([Executed()] * 3, object),
    "NaN": np.full((3, 28, 28), np.nan, np.float32),
    "settings too deep": lambda path: altered(path, config=np.array("[" * 100_000)),
}


@pytest.mark.parametrize("kind", BROKEN_FILES)
def test_no_reader_takes_a_broken_file(tmp_path, kind):
    path, broken = tmp_path / 'it\'s a "näme" with\na break.npz', BROKEN_FILES[kind]
    digits_results(path)
    results.load(path)  # else it would be refused for another reason
    if isinstance(broken, bytes):
        path.write_bytes(broken)
    elif callable(broken):
        broken(path)
    else:
        altered(path, xs=broken)
    with pytest.raises(Failure, match=r"(?s)näme.*write it again"):
        results.load(path)


@pytest.mark.parametrize(
    ("script", "attack"),
    [
        ("method2_fgsm/visualize_mnist", "mnist_fast_gradient"),
        ("method2_fgsm/visualize_imnet", "imnet_fast_gradient"),
        ("method1_noise_optimization/visualize_adv_examples", "attack_imnet"),
    ],
)
def test_results_of_another_script_are_not_drawn(refuses, place, script, attack):
    digits_results(place / "results.npz", script=["attack_mnist"])
    refuses(script, place / "results.npz", culprit=f"{attack}.py: run `python")
    digits_results(place / "results.npz", count=0, script=attack)
    refuses(script, place / "results.npz", culprit="holds no image")


def not_finite(path):
    model = mnist.build("mlp")
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    model.save_weights(path)


def torch_file(path):
    """What a library that saves pickles leaves: a zip with a pickle in it, and code in that."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Executed()))


BROKEN_WEIGHTS = {
    "cut": lambda path: os.truncate(path, 50_000),
    "a .pth": instead(torch_file),
    "another size's": instead(lambda path: mnist.build("fc50-10_relu").save_weights(path)),
    "NaN": instead(not_finite),
}


@pytest.mark.parametrize("kind", BROKEN_WEIGHTS)
def test_no_model_takes_broken_weights(tmp_path, kind):
    path = tmp_path / "mlp.weights.h5"
    mnist.build("mlp").save_weights(path)
    BROKEN_WEIGHTS[kind](path)
    with pytest.raises(Failure, match=r"mlp\.weights\.h5.*run `python common/train_mnist\.py"):
        mnist.load("mlp", path)


def test_files_of_other_weights_are_not_opened(refuses, place):
    torch_file(place / "model.pth")
    arguments = ("--output", place / "out.csv", "--weights", place / "model.pth")
    refuses("method2_fgsm/imnet_fast_gradient", *arguments, culprit="must end in .h5")


# Outputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "culprit"),
    [
        ("{}/no\nsuch/file.npz", "there is no folder"),
        ("/dev/null", "not a file"),
        ("/proc/file.npz", "cannot write /proc/file.npz"),
    ],
)
def test_outputs_that_cannot_be_written(refuses, place, output, culprit):
    refuses("common/generate_5k", "--output", output.format(place), culprit=culprit)


@pytest.mark.parametrize("name", ["in.npz", "link.npz", "hard.npz", "new.npz"])
def test_an_output_that_the_run_has_for_something_else_is_refused(tmp_path, name):
    (tmp_path / "in.npz").write_bytes(b"precious")
    (tmp_path / "link.npz").symlink_to("in.npz")
    os.link(tmp_path / "in.npz", tmp_path / "hard.npz")
    output = tmp_path / name
    same = tmp_path / ("new.npz" if name == "new.npz" else "in.npz")
    args = SimpleNamespace(output=output, samples=same, seed=0, eps=None)
    several = SimpleNamespace(output=output, images=[same])
    for given in ((args,), (several,), (None, [same])):
        with pytest.raises(Failure, match="for something else"):
            files.check_output(output, *given)
    args.samples = tmp_path / "other.npz"
    assert files.check_output(output, args) == output
    assert (tmp_path / "in.npz").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("script", "arguments", "name"),
    [
        ("method1_noise_optimization/attack_mnist", "--samples {0} --output {0}", "a.npz"),
        ("method2_fgsm/imnet_fast_gradient", "--labels {0} --output {0}", "a.csv"),
        ("method2_fgsm/two_to_six", "--samples {0} --output {0}", "a.png"),
        ("common/my_digits", "{0} --figure {0}", "a.png"),
    ],
)
def test_scripts_refuse_to_overwrite_what_they_read(refuses, place, script, arguments, name):
    (place / name).write_text("0\n")
    refuses(script, *arguments.format(place / name).split(), culprit=name)


@pytest.mark.parametrize(
    ("script", "output", "also"),
    [
        ("common/generate_5k", "a.npz", "a.npz"),
        ("method1_noise_optimization/distances", "a.png", "a_distances.npz"),
        ("method2_fgsm/certified", "a.png", "proven.npz"),
        ("method2_fgsm/robustness", "a.png", "a.json"),
        ("method2_fgsm/imnet_fast_gradient", "a.csv", "a.npz"),
    ],
)
def test_all_that_a_run_writes_is_looked_at_before_the_work(
    refuses, place, monkeypatch, script, output, also
):
    monkeypatch.setattr(certified, "PROVEN_EPS", place / "proven.npz")
    for part in (mnist, imagenet):
        monkeypatch.setattr(part, "load", lambda *_: pytest.fail("loaded"))
    (place / also).touch(0o444)
    refuses(script, "--output", place / output, culprit=f"{also}: it is write-protected")


def test_a_disk_that_runs_full(place, capsys):
    """No file of this process may grow beyond a thousand bytes."""
    mnist.build("mlp").save_weights(mnist.weights_path("mlp"))
    before = mnist.weights_path("mlp").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(Failure, match=r"cannot write .*mlp\.weights\.h5: File too large"):
            training.report("mlp", mnist.build("mlp"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert mnist.weights_path("mlp").read_bytes() == before
    assert sorted(os.listdir(files.WEIGHTS)) == ["mlp.weights.h5", "precious"]


# What the scripts are given ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "broken"),
    [
        ("common/check_results", "out.npz"),
        ("common/generate_5k", "digits.npz"),
        ("logreg_softmax/exact", "weights/softmax.weights.h5"),
        ("method1_noise_optimization/attack_mnist", "samples.npz"),
    ],
)
def test_scripts_name_what_is_broken(refuses, place, monkeypatch, script, broken):
    samples(place / "samples.npz")
    monkeypatch.setattr(data, "SAMPLES", place / "samples.npz")
    if broken == "digits.npz":
        monkeypatch.setattr(data, "PATH", place / "digits.npz")
    path = place / broken
    path.write_bytes(b"")
    arguments = [path] if script == "common/check_results" else []
    refuses(script, *arguments, culprit=f"{path.name} is truncated")


@pytest.mark.parametrize(
    ("script", "arguments", "culprit"),
    [
        ("method2_fgsm/epsilon", "--source 6", "both 6"),
        ("method2_fgsm/adversarial_training", "--alpha 1 --attack pgd", "goes with --attack sign"),
        ("method2_fgsm/adversarial_training", "--steps 9", "goes with --attack pgd"),
        ("common/train_mnist", "--hidden --model cnn", "exclude each other"),
        ("common/train_mnist", "--weight-decay 1e-4", "goes with --hidden"),
        ("common/train_mnist", "--hidden 9 --weight-decay 1 2 3", "not 3"),
        ("common/my_digits", "--label 7", "needs a PICTURE"),
        ("common/reproduce", "--only everything", "everything"),
    ],
)
def test_wrong_arguments_are_named(refuses, script, arguments, culprit):
    refuses(script, *arguments.split(), culprit=culprit, code=(2,))


def test_an_interrupted_run_that_was_tampered_with(tmp_path):
    output, settings = tmp_path / "out.csv", {"script": "imnet_fast_gradient"}
    folder = tmp_path / "out.unfinished"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(settings))
    assert photo_run.left(folder, output, settings) == []
    part = folder / "00000000.csv"
    for contents in pickle.dumps(Executed()), b"a,b\n1,2":
        part.write_bytes(contents)
        assert photo_run.left(folder, output, settings) == [part]
        with pytest.raises(Failure, match=r"out\.unfinished"):
            list(photo_rows.read(part))
    (folder / "settings.json").write_text("[1")
    with pytest.raises(Failure, match=r"out\.unfinished"):
        photo_run.left(folder, output, settings)
