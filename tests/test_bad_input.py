"""Input that no script should take: one line, an exit code, and nothing touched.

Each reader is tried with every kind of broken file; each script, for being wired to its readers,
with one.  (What is wrong with a photograph: test_photos.py.)
"""

import io
import os
import pickle
import resource
import shutil
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image

from common import data, files, models, results, training
from common.command import Failure
from common.imagenet import networks, rows


class Executed:
    """Unpickling this runs code, which ends the test."""

    def __reduce__(self):
        return pytest.fail, ("executed",)


# Files of arrays ---------------------------------------------------------------------------------


def digits_results(path, **config):
    """Write valid results on three digits, such as method 1 leaves."""
    xs = np.random.default_rng(0).uniform(size=(3, 28, 28)).astype(np.float32)
    results.save(
        path,
        xs=xs,
        noises=(0.5 - xs) / 2,
        y_trues=np.arange(3),
        y_preds=np.arange(3),
        y_preds_adversarial=np.arange(3) + 1,
        y_targets=np.arange(3) + 1,
        indices=np.arange(3),
        config={"model": "mlp", "eps": 0.5, "method": "minimal"} | config,
    )


def photo_results(path, **config):
    """Write valid results on two photographs."""
    xs, one = np.full((2, 224, 224, 3), 0.5, np.float32), np.full(2, 0.5, np.float32)
    results.save(
        path,
        xs=xs,
        noises=xs * 0 + np.float32(0.007),
        **{name: np.arange(2) for name in (*results.LABELS, "y_preds_sign")},
        **{f"confidences{kind}": one for kind in ("", "_adversarial", "_sign")},
        signs=xs * 0 + 1,
        config={"model": "efficientnet_lite0", "eps": 0.007, "paths": ["a", "b"]} | config,
    )


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


def images(change):
    """A way to break a file: its images are what `change` makes of them."""

    def alter(path):
        with np.load(path) as stored:
            array = stored["xs"]
        altered(path, xs=change(array))

    return alter


def pixel(value):
    return images(lambda x: np.concatenate([np.full_like(x[:1], value), x[1:]]))


def content(change):
    """A way to break a file: its bytes are what `change` makes of them."""
    return lambda path: path.write_bytes(change(path.read_bytes()))


def member(new):
    """A way to break a file: `new` in the place of the bytes of the images."""

    def alter(path):
        altered(path, xs=None)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("xs.npy", new)

    return alter


def header(shape):
    file = io.BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, description)
    return file.getvalue()


def bare_array(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros((3, 28, 28), np.float32))


def instead(make):
    """A way to break a file: something else in its place."""
    return lambda path: (path.unlink(), make(path))


BROKEN_FILES = {
    "missing": instead(lambda path: None),
    "empty": content(lambda old: b""),
    "cut": content(lambda old: old[:-30]),
    "a text": content(lambda old: b"index,label\n0,7\n"),
    "a folder": instead(lambda path: path.mkdir()),
    "a link to itself": instead(lambda path: path.symlink_to(path)),
    "a pipe": instead(os.mkfifo),
    "a pickle": content(lambda old: pickle.dumps(Executed())),
    "an array of objects": images(lambda x: np.array([Executed()] * 3, object)),
    "a bare array": bare_array,
    "something that is no array": member("no array"),
    "a shape beyond memory": member(header((10**14, 28, 28))),
    "images missing": images(lambda x: None),
    "no dimensions": images(lambda x: np.float32(1)),
    "another size": images(lambda x: np.zeros((9, 9, 9, 3), np.float32)),
    "another type": images(lambda x: x.astype(np.float64)),
    "NaN": pixel(np.nan),
    "a pixel above 1": pixel(1.5),
    "a pixel below 0": pixel(-0.5),
}


@pytest.mark.parametrize("kind", BROKEN_FILES)
def test_no_reader_takes_a_broken_file(tmp_path, kind):
    path = tmp_path / 'it\'s a "näme" with\na break.npz'
    digits_results(path)
    results.load(path)  # else it would be refused for another reason
    BROKEN_FILES[kind](path)
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
    with pytest.raises(Failure, match=r"bomb\.npz unpacks to "):
        files.read_npz(path, remedy="")


VISUALIZE = "method1_noise_optimization/visualize_adv_examples"


@pytest.mark.parametrize(
    ("write", "script", "config", "culprit"),
    [
        (digits_results, "method2_fgsm/visualize_mnist", {"model": "../../up"}, "which model"),
        (digits_results, "method2_fgsm/visualize_mnist", {"eps": "a lot"}, "eps"),
        (digits_results, VISUALIZE, {"method": 1}, "method 1"),
        (photo_results, "method2_fgsm/visualize_imnet", {"target": 4000}, "photographs"),
        (digits_results, "common/check_results", {"model": "fc" + "9" * 300}, "failed: "),
        (digits_results, "common/check_results", {"eps": 10**400}, "failed: "),
    ],
)
def test_settings_that_no_attack_has(refuses, place, write, script, config, culprit):
    models.build("mlp").save_weights(models.weights_path("mlp"))
    write(place / "results.npz", **config)
    refuses(script, place / "results.npz", culprit=culprit)


# Weights -----------------------------------------------------------------------------------------


def not_finite(path):
    model = models.build("mlp")
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    model.save_weights(path)


def torch_file(path):
    """What a library that saves pickles leaves: a zip with a pickle in it, and code in that."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Executed()))


def without_a_layer(path):
    """Keras itself only warns, and leaves the layer's random weights as they are."""
    with h5py.File(path, "a") as file:
        del file["layers/dense_1"]


def saved(name):
    return instead(lambda path: models.build(name).save_weights(path))


BROKEN_WEIGHTS = {
    "missing": instead(lambda path: None),
    "cut": content(lambda old: old[:50_000]),
    "a .pth": instead(torch_file),
    "a layer missing": without_a_layer,
    "another model's": saved("cnn"),
    "another size's": saved("fc50-10_relu"),
    "NaN": instead(not_finite),
}


@pytest.mark.parametrize("kind", BROKEN_WEIGHTS)
def test_no_model_takes_broken_weights(tmp_path, kind):
    path = tmp_path / "mlp.weights.h5"
    models.build("mlp").save_weights(path)
    BROKEN_WEIGHTS[kind](path)
    with pytest.raises(Failure, match=r"mlp\.weights\.h5.*run `python common/train_mnist\.py"):
        models.load("mlp", path)


@pytest.mark.parametrize("script", ["common/check_results", "method2_fgsm/imnet_fast_gradient"])
def test_files_of_other_weights_are_not_opened(refuses, place, script):
    torch_file(place / "model.pth")
    digits_results(place / "results.npz")
    checker = script == "common/check_results"
    arguments = (place / "results.npz",) if checker else ("--output", place / "out.csv")
    refuses(script, *arguments, "--weights", place / "model.pth", culprit="must end in .h5")


# Outputs -----------------------------------------------------------------------------------------

IMPOSSIBLE_OUTPUTS = {
    "in no folder": ("{}/no/such/file.npz", "does not exist"),
    "in a file": ("{}/out.npz/file.npz", "is not a folder"),
    "no regular file": ("/dev/null", "no regular file"),
    "a read-only place": ("/proc/file.npz", "cannot write /proc/file.npz"),
    "too long a name": ("{}/" + "n" * 300 + ".npz", "File name too long"),
    "a link to itself": ("{}/loop.npz", "loop.npz"),
    "a break in the name": ("{}/no\nsuch/file.npz", "no such"),
    "without permission": ("{}/locked/file.npz", "Permission denied"),
}


@pytest.mark.parametrize("where", IMPOSSIBLE_OUTPUTS)
def test_outputs_that_cannot_be_written(refuses, place, where):
    if where == "without permission" and os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (place / "loop.npz").symlink_to(place / "loop.npz")
    (place / "locked").mkdir(mode=0o500)
    output, culprit = IMPOSSIBLE_OUTPUTS[where]
    refuses("common/generate_5k", "--output", output.format(place), culprit=culprit)


@pytest.mark.parametrize("which", ["WEIGHTS", "IMG"])
def test_a_file_in_the_place_of_our_own_folder(refuses, place, monkeypatch, which):
    monkeypatch.setattr(files, which, place / "out.npz")
    refuses("logreg_softmax/train", culprit=str(place / "out.npz"))


@pytest.fixture
def full_disk(place):
    """No file of this process may grow beyond a thousand bytes."""
    models.build("mlp").save_weights(models.weights_path("mlp"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_runs_full(refuses, place, full_disk):
    refuses("common/generate_5k", "--output", place / "out.npz", culprit="cannot write")


def test_a_disk_that_runs_full_under_weights(full_disk, capsys):
    before = models.weights_path("mlp").read_bytes()
    with pytest.raises(Failure, match=r"cannot write .*mlp\.weights\.h5: File too large"):
        training.report("mlp", models.build("mlp"))
    assert models.weights_path("mlp").read_bytes() == before
    assert sorted(os.listdir(files.WEIGHTS)) == ["mlp.weights.h5", "precious"]


# Scripts -----------------------------------------------------------------------------------------

# What a script reads and writes: each of these is broken in turn.
SCRIPTS = {
    "common/check_results": "results",
    "common/generate_5k": "digits output",
    "logreg_softmax/exact": "samples weights output",
    "logreg_softmax/train": "digits",
    "method1_noise_optimization/attack_mnist": "samples weights output",
    "method1_noise_optimization/compare_methods": "samples weights output",
    "method1_noise_optimization/every_pair": "samples weights output",
    "method1_noise_optimization/transfer": "samples output",
    "method1_noise_optimization/visualize_adv_examples": "results output",
    "method2_fgsm/accuracy_vs_epsilon": "digits weights output",
    "method2_fgsm/adversarial_training": "weights output",
    "method2_fgsm/epsilon": "digits weights output",
    "method2_fgsm/mnist_fast_gradient": "samples weights output",
    "method2_fgsm/two_to_six": "digits weights output",
    "method2_fgsm/visualize_imnet": "results",
    "method2_fgsm/visualize_mnist": "results output",
}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A folder with weights of the three models."""
    folder = tmp_path_factory.mktemp("weights")
    for name in models.NAMES:
        models.build(name).save_weights(folder / f"{name}.weights.h5")
    return folder


@pytest.mark.parametrize(
    ("script", "what"), [(script, what) for script in SCRIPTS for what in SCRIPTS[script].split()]
)
def test_scripts_name_what_is_broken(refuses, place, untrained, monkeypatch, script, what):
    shutil.copytree(untrained, files.WEIGHTS, dirs_exist_ok=True)
    samples(place / "samples.npz")
    digits_results(place / "results.npz")
    monkeypatch.setattr(data, "SAMPLES", place / "samples.npz")
    if what == "digits":
        monkeypatch.setattr(data, "PATH", place / "digits.npz")
    folder = "no such folder" if what == "output" else "."
    for path in files.WEIGHTS.glob("*.h5") if what == "weights" else [place / f"{what}.npz"]:
        path.write_bytes(b"")
    arguments = [place / "results.npz"] if "results" in SCRIPTS[script] else []
    if "output" in SCRIPTS[script]:
        arguments += ["--output", place / folder / "out.npz"]
    culprit = "does not exist" if what == "output" else f"{what}.npz is truncated"
    refuses(script, *arguments, culprit=".h5 is truncated" if what == "weights" else culprit)


# Arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "arguments", "culprit"),
    [
        ("method2_fgsm/epsilon", "--model vgg", "vgg"),
        ("method2_fgsm/epsilon", "--target -1", "'-1' is not a digit"),
        ("method2_fgsm/epsilon", "--source 6", "both 6"),
        ("method2_fgsm/two_to_six", "--eps 8", "8/255"),
        ("method2_fgsm/two_to_six", "--eps 0,03", "write a point, 0.03"),
        ("method2_fgsm/two_to_six", "--eps 0.1 --margin 0.1", "not allowed"),
        ("method2_fgsm/mnist_fast_gradient", "--eps 1/0", "'1/0'"),
        ("method2_fgsm/adversarial_training", "--alpha 1.1", "'1.1'"),
        ("method1_noise_optimization/attack_mnist", "--learning-rate inf", "'inf'"),
        ("method1_noise_optimization/attack_mnist", "--model ../mlp", "'../mlp'"),
        ("common/train_mnist", "--model softmax", "softmax"),
        ("common/train_mnist", "--epochs 1.5", "1.5"),
        ("common/train_mnist", "--hidden 1000000 1000000", "1000000"),
        ("common/train_mnist", "--hidden --model cnn", "exclude each other"),
        ("common/train_mnist", "--weight-decay 1e-4", "goes with --hidden"),
        ("common/train_mnist", "--hidden 9 --weight-decay 1 2 3", "not 3"),
        ("logreg_softmax/train", "--seed -1", "-1"),
        ("common/generate_5k", "--count many", "many"),
        ("common/my_digits", "--label x a.png", "'x' is not a digit"),
        ("common/my_digits", "--label 7", "needs a PICTURE"),
        ("common/reproduce", "--only everything", "everything"),
    ],
)
def test_wrong_arguments_are_named(refuses, script, arguments, culprit):
    refuses(script, *arguments.split(), culprit=culprit, code=(2,))


# Photographs -------------------------------------------------------------------------------------


def without_paths(folder):
    found = results.load(folder / "out.partial.npz")
    del found["config"]["paths"]
    results.save(folder / "out.partial.npz", **found)


def rows_instead(text):
    return lambda folder: (folder / "out.partial.csv").write_bytes(text)


def with_row(column, value):
    row = dict.fromkeys(rows.COLUMNS[1:], "1") | {column: value}
    return rows_instead(f"{','.join(rows.COLUMNS)}\ngrey.png,{','.join(row.values())}\n".encode())


TAMPERED_RUNS = {
    "rows are no CSV": rows_instead(b"\xff\0\n" * 9),
    "a label that is none": with_row("y_pred", "cat"),
    "an empty confidence": with_row("confidence_adversarial", ""),
    "images are a pickle": lambda folder: BROKEN_FILES["a pickle"](folder / "out.partial.npz"),
    "settings lack the paths": without_paths,
}


@pytest.mark.parametrize("kind", TAMPERED_RUNS)
def test_an_interrupted_run_that_was_tampered_with(refuses, place, monkeypatch, kind):
    monkeypatch.setattr(networks, "load", lambda *_: pytest.fail("loaded"))
    folder, output = place / "photographs", place / "out.csv"
    folder.mkdir()
    Image.new("RGB", (9, 9)).save(folder / "grey.png")
    output.write_bytes(b"what was there before")
    settings = {"script": "imnet_fast_gradient", "weights": None, "target": None}
    settings |= {"images": str(folder), "batch_size": 1, "save_images": None}
    photo_results(place / "out.partial.npz", **settings)
    TAMPERED_RUNS[kind](place)
    options = ("--images", folder, "--batch-size", 1, "--output", output, "--resume")
    refuses("method2_fgsm/imnet_fast_gradient", *options, culprit="out.partial.")
