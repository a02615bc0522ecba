"""Input that no script should take: one line, an exit code, and nothing touched.

Each reader is tried with every kind of broken file; each script, for being wired to its readers,
with one.  (What is wrong with a photograph: test_photos.py.)
"""

import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from common import data, files, results
from common.command import Failure
from common.networks import imagenet, mnist, training


class Executed:
    """Unpickling this runs code, which ends the test."""

    def __reduce__(self):
        return pytest.fail, ("executed",)


# Files of arrays ---------------------------------------------------------------------------------


def digits_results(path, **config):
    """Write valid results on three digits, such as method 1 leaves."""
    xs = np.random.default_rng(0).uniform(size=(3, 28, 28)).astype(np.float32)
    labels = {name: np.arange(3) for name in ("y_trues", "y_preds", "indices")}
    labels |= {name: np.arange(3) + 1 for name in ("y_preds_adversarial", "y_targets")}
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
    "a link to itself": instead(lambda path: path.symlink_to(path)),
    "a pipe": instead(os.mkfifo),
    "something that is no array": lambda path: with_member(path, b"no array"),
    "a shape beyond memory": lambda path: with_member(path, header((10**14, 28, 28))),
    "images missing": None,
    "an array of objects": np.array([Executed()] * 3, object),
    "NaN": np.full((3, 28, 28), np.nan, np.float32),
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
    with pytest.raises(Failure, match="näme"):
        results.load(path)


@pytest.mark.parametrize("config", ["[" * 100_000, '"text"'])
def test_settings_that_are_none(tmp_path, config):
    path = tmp_path / "results.npz"
    digits_results(path)
    altered(path, config=np.array(config))
    with pytest.raises(Failure, match=r"results\.npz is not a result file \(config is not"):
        results.load(path)


def test_a_file_that_unpacks_to_more_than_memory(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, xs=np.zeros((2000, 28, 28), np.float32))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(files, "MAX_BYTES", 1_000_000)
    with pytest.raises(
        Failure, match=r"bomb\.npz unpacks to .*: ask for fewer images with --limit"
    ):
        files.read_npz(path, remedy="")


def test_results_of_any_size_can_be_read_and_a_lack_of_memory_is_called_so(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    path = tmp_path / "results.npz"
    digits_results(path)
    assert results.load(path)["xs"].nbytes > files.MAX_BYTES
    with_member(path, header((10**14, 28, 28)))
    with pytest.raises(Failure, match=r"cannot read .*results\.npz: Unable to allocate"):
        results.load(path)


def test_an_epsilon_that_no_attack_has(refuses, place):
    mnist.build("mlp").save_weights(mnist.weights_path("mlp"))
    digits_results(place / "results.npz", eps=10**400)
    refuses("common/check_results", place / "results.npz", culprit="failed: ")


@pytest.mark.parametrize(
    ("script", "attack"),
    [
        ("method2_fgsm/visualize_mnist", "mnist_fast_gradient"),
        ("method2_fgsm/visualize_imnet", "imnet_fast_gradient"),
        ("method1_noise_optimization/visualize_adv_examples", "attack_imnet"),
    ],
)
def test_results_of_another_script_are_not_drawn(refuses, place, script, attack):
    for other in ("train_mnist", None, ["attack_mnist"]):
        digits_results(place / "results.npz", script=other)
        refuses(script, place / "results.npz", culprit=f"{attack}.py: run `python")
    nothing = {name: np.zeros((0, 28, 28)) for name in results.IMAGES}
    nothing |= {name: [] for name in results.LABELS}
    results.save(place / "results.npz", **nothing, config={"script": attack})
    refuses(script, place / "results.npz", culprit="holds no image")


# Weights -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("script", ["common/check_results", "method2_fgsm/imnet_fast_gradient"])
def test_files_of_other_weights_are_not_opened(refuses, place, script):
    torch_file(place / "model.pth")
    digits_results(place / "results.npz")
    checker = script == "common/check_results"
    arguments = (place / "results.npz",) if checker else ("--output", place / "out.csv")
    refuses(script, *arguments, "--weights", place / "model.pth", culprit="must end in .h5")


# Outputs -----------------------------------------------------------------------------------------

IMPOSSIBLE_OUTPUTS = {
    "in no folder": ("{}/no\nsuch/file.npz", "does not exist"),
    "in a file": ("{}/out.npz/file.npz", "is not a folder"),
    "a device": ("/dev/null", "is not a file"),
    "a read-only place": ("/proc/file.npz", "cannot write /proc/file.npz"),
    "too long a name": ("{}/" + "n" * 300 + ".npz", "File name too long"),
}


@pytest.mark.parametrize("where", IMPOSSIBLE_OUTPUTS)
def test_outputs_that_cannot_be_written(refuses, place, where):
    output, culprit = IMPOSSIBLE_OUTPUTS[where]
    refuses("common/generate_5k", "--output", output.format(place), culprit=culprit)


def test_a_file_in_the_place_of_our_own_folder(refuses, place, monkeypatch):
    monkeypatch.setattr(files, "IMG", place / "out.npz")
    refuses("logreg_softmax/train", culprit=str(place / "out.npz"))


@pytest.fixture
def full_disk(place):
    """No file of this process may grow beyond a thousand bytes."""
    mnist.build("mlp").save_weights(mnist.weights_path("mlp"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_runs_full(refuses, place, full_disk):
    refuses("common/generate_5k", "--output", place / "out.npz", culprit="cannot write")


def test_a_disk_that_runs_full_under_weights(full_disk, capsys):
    before = mnist.weights_path("mlp").read_bytes()
    with pytest.raises(Failure, match=r"cannot write .*mlp\.weights\.h5: File too large"):
        training.report("mlp", mnist.build("mlp"))
    assert mnist.weights_path("mlp").read_bytes() == before
    assert sorted(os.listdir(files.WEIGHTS)) == ["mlp.weights.h5", "precious"]


# Scripts -----------------------------------------------------------------------------------------

# What is broken in turn, where a script reads or writes in its own way.
SCRIPTS = {
    "common/check_results": "results",
    "common/generate_5k": "digits output",
    "logreg_softmax/exact": "weights",
    "method1_noise_optimization/attack_mnist": "samples weights output",
    "method1_noise_optimization/visualize_adv_examples": "results output",
    "method2_fgsm/accuracy_vs_epsilon": "digits output",
}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A folder with weights of the three models."""
    folder = tmp_path_factory.mktemp("weights")
    for name in mnist.NAMES:
        mnist.build(name).save_weights(folder / f"{name}.weights.h5")
    return folder


@pytest.mark.parametrize(
    ("script", "what"), [(script, what) for script in SCRIPTS for what in SCRIPTS[script].split()]
)
def test_scripts_name_what_is_broken(refuses, place, untrained, monkeypatch, script, what):
    shutil.copytree(untrained, files.WEIGHTS, dirs_exist_ok=True)
    samples(place / "samples.npz")
    digits_results(place / "results.npz", script="attack_mnist")
    monkeypatch.setattr(data, "SAMPLES", place / "samples.npz")
    if what == "digits":
        monkeypatch.setattr(data, "PATH", place / "digits.npz")
    folder = "no such folder" if what == "output" else "."
    for path in files.WEIGHTS.glob("*.h5") if what == "weights" else [place / f"{what}.npz"]:
        path.write_bytes(b"")
    arguments = [place / "results.npz"] if "results" in SCRIPTS[script] else []
    if "output" in SCRIPTS[script]:
        arguments += ["--output", place / folder / "out.png"]
    culprit = "does not exist" if what == "output" else f"{what}.npz is truncated"
    refuses(script, *arguments, culprit=".h5 is truncated" if what == "weights" else culprit)


# Arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "arguments", "culprit"),
    [
        ("method2_fgsm/epsilon", "--source 6", "both 6"),
        ("method2_fgsm/two_to_six", "--eps 0,03", "write a point, 0.03"),
        ("method2_fgsm/two_to_six", "--eps 0.1 --margin 0.1", "not allowed"),
        ("method2_fgsm/adversarial_training", "--alpha 1.1", "'1.1' is not between 0 and 1"),
        ("method2_fgsm/adversarial_training", "--alpha 1 --attack pgd", "goes with --attack sign"),
        ("method2_fgsm/adversarial_training", "--steps 9", "goes with --attack pgd"),
        ("method1_noise_optimization/attack_mnist", "--model ../mlp", "'../mlp'"),
        ("common/train_mnist", "--model softmax", "softmax"),
        ("common/train_mnist", "--hidden --model cnn", "exclude each other"),
        ("common/train_mnist", "--weight-decay 1e-4", "goes with --hidden"),
        ("common/train_mnist", "--hidden 9 --weight-decay 1 2 3", "not 3"),
        ("common/my_digits", "--label 7", "needs a PICTURE"),
        ("common/reproduce", "--only everything", "everything"),
    ],
)
def test_wrong_arguments_are_named(refuses, script, arguments, culprit):
    refuses(script, *arguments.split(), culprit=culprit, code=(2,))


# Photographs -------------------------------------------------------------------------------------


TAMPERED_RUNS = {
    "it does not say what it is": lambda folder: (folder / "settings.json").write_text("[1"),
    "a batch is a pickle": lambda folder: (folder / "00000000.csv").write_bytes(
        pickle.dumps(Executed())
    ),
    "a batch has other columns": lambda folder: (folder / "00000000.csv").write_text("a,b\n1,2"),
}


@pytest.mark.parametrize("kind", TAMPERED_RUNS)
def test_an_interrupted_run_that_was_tampered_with(refuses, place, monkeypatch, kind):
    monkeypatch.setattr(imagenet, "load", lambda *_: pytest.fail("loaded"))
    folder, output = place / "photographs", place / "out.csv"
    folder.mkdir()
    Image.new("RGB", (9, 9)).save(folder / "grey.png")
    output.write_bytes(b"what was there before")
    settings = {"script": "imnet_fast_gradient", "eps": 0.007, "target": None}
    settings |= {"model": "efficientnet_lite0", "images": [str(folder)], "labels": None}
    settings |= {"weights": None, "batch_size": 1, "save_images": None}
    digest = hashlib.sha256(b"grey.png").hexdigest()
    settings |= {"photographs": f"1 with the names of SHA-256 {digest}"}
    unfinished = place / "out.unfinished"
    unfinished.mkdir()
    (unfinished / "settings.json").write_text(json.dumps(settings))
    TAMPERED_RUNS[kind](unfinished)
    options = ("--images", folder, "--batch-size", 1, "--output", output, "--resume")
    refuses("method2_fgsm/imnet_fast_gradient", *options, culprit="out.unfinished")
