"""Every script, given what it should not be given: one line, an exit code, and nothing touched.

Each test is one cell of a matrix (script, what is wrong).  The scripts run in this process, through
`command.run` as from the shell, with their output going to a file that holds something already.
"""

import importlib
import io
import json
import os
import pickle
import re
import resource
import shutil
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from common import command, data, files, models, results
from common.imagenet import attack_batch, efficientnet_lite0, labels, networks, rows

PRECIOUS = b"what was there before"
TRACES = []


class Executed:
    """Unpickling this runs code, which leaves a trace."""

    def __reduce__(self):
        return TRACES.append, ("executed",)


@pytest.fixture(autouse=True)
def nothing_is_executed():
    TRACES.clear()
    yield
    assert not TRACES


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of weights, a folder of figures and a folder for all else, of this test alone."""
    for name in ("WEIGHTS", "IMG"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        (folder / "precious").write_bytes(PRECIOUS)
        monkeypatch.setattr(files, name, folder)
    (tmp_path / "out.npz").write_bytes(PRECIOUS)
    return tmp_path


def seen(folder):
    """Everything below a folder: path, kind, size, time of change and, of short files, content."""
    found = {}
    for at, folders, names in os.walk(folder):
        for name in folders + names:
            path = os.path.join(at, name)
            status = os.lstat(path)
            content = b""
            if os.path.isfile(path) and status.st_size < 100_000:
                with open(path, "rb") as file:
                    content = file.read()
            found[path] = (status.st_mode, status.st_size, status.st_mtime_ns, content)
    # The folders' own times change when a name is tried and given up.
    return {path: what if os.path.isfile(path) else what[0] for path, what in found.items()}


@pytest.fixture
def refuses(place, capfd, monkeypatch):
    """A function: the script ends with 1 or 2 and one line with `culprit`, and changes nothing."""

    def run(script, *arguments, culprit, code=None):
        folder, name = script.split("/")
        main = importlib.import_module(f"{folder}.{name}").main
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        before = seen(place)
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            command.run(main)
        error = capfd.readouterr().err
        assert end.value.code in ((1, 2) if code is None else (code,)), error
        assert re.fullmatch(rf"{name}\.py: error: [^\n]*\n", error), error
        assert culprit in error
        assert seen(place) == before

    return run


# Files of arrays ---------------------------------------------------------------------------------


def digits_results(method):
    """Valid results on three digits, as `results.save` takes them."""
    rng = np.random.default_rng(0)
    xs = rng.uniform(size=(3, 28, 28)).astype(np.float32)
    arrays = {
        "xs": xs,
        "noises": (rng.uniform(size=xs.shape) - xs).astype(np.float32) / 2,
        "y_trues": np.arange(3),
        "y_preds": np.arange(3),
        "y_preds_adversarial": np.arange(3) + 1,
        "indices": np.arange(3),
    }
    if method == 1:
        arrays["y_targets"] = np.arange(3) + 1
    return arrays, {"model": "mlp", "eps": 0.5, "method": "minimal"}


def photo_results():
    """Valid results on two photographs."""
    xs = np.full((2, 224, 224, 3), 0.5, np.float32)
    one = np.full(2, 0.5, np.float32)
    arrays = {
        "xs": xs,
        "noises": xs * 0 + np.float32(0.007),
        "y_trues": np.arange(2),
        "y_preds": np.arange(2),
        "y_preds_adversarial": np.arange(2) + 1,
        "confidences": one,
        "confidences_adversarial": one,
        "signs": xs * 0 + 1,
        "y_preds_sign": np.arange(2),
        "confidences_sign": one,
    }
    return arrays, {"model": "efficientnet_lite0", "eps": 0.007, "paths": ["a", "b"]}


def valid(kind, path):
    """Write a valid file of that kind; returns the name of its images."""
    if kind == "samples":
        images = np.zeros((5, 28, 28), np.float32)
        np.savez(path, images=images, labels=np.arange(5), indices=np.arange(5))
        return "images"
    arrays, config = photo_results() if kind == "photos" else digits_results(int(kind[-1]))
    results.save(path, **arrays, config=config)
    return "xs"


def altered(path, **changes):
    """Write the arrays of a file anew with some changed, or left out where the change is None."""
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays = {k: v for k, v in (arrays | changes).items() if v is not None}
    np.savez_compressed(path, **arrays)


def with_pixel(value):
    def alter(path, name):
        with np.load(path) as stored:
            images = stored[name]
        images[0, 3, 3] = value
        altered(path, **{name: images})

    return alter


def as_type(dtype):
    def alter(path, name):
        with np.load(path) as stored:
            altered(path, **{name: stored[name].astype(dtype)})

    return alter


def flip_a_byte(path, name):
    """In the middle of the images; what lies between the arrays nobody reads."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
    content = bytearray(path.read_bytes())
    content[member.header_offset + 60 + member.compress_size // 2] ^= 0xFF
    path.write_bytes(content)


def object_array(path, name):
    array = np.empty(3, object)
    array[:] = Executed()
    altered(path, **{name: array})


def with_member(path, name, content):
    """Put `content` in the place of the array's bytes."""
    altered(path, **{name: None})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", content)


def no_array(path, name):
    with_member(path, name, "no array")


def encrypted(path, name):
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag in the directory at the end
    path.write_bytes(content)


def huge_shape(path, name):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**14, 28, 28)}
    )
    with_member(path, name, header.getvalue())


def folder_instead(path, name):
    path.unlink()
    path.mkdir()


def link_to_itself(path, name):
    path.unlink()
    path.symlink_to(path)


def pipe_instead(path, name):
    path.unlink()
    os.mkfifo(path)


def pickled(path, name):
    path.write_bytes(pickle.dumps(Executed()))


def bare_array(path, name):
    with open(path, "wb") as file:
        np.save(file, np.zeros((3, 28, 28), np.float32))


BROKEN_FILES = {
    "missing": lambda path, name: path.unlink(),
    "empty": lambda path, name: path.write_bytes(b""),
    "truncated": lambda path, name: path.write_bytes(path.read_bytes()[:-30]),
    "cut in the middle": lambda path, name: path.write_bytes(path.read_bytes()[:400]),
    "a byte flipped": flip_a_byte,
    "a text": lambda path, name: path.write_text("index,label\n0,7\n"),
    "a folder": folder_instead,
    "a link to itself": link_to_itself,
    "a pipe": pipe_instead,
    "a pickle": pickled,
    "an array of objects": object_array,
    "a bare array": bare_array,
    "something that is no array": no_array,
    "encrypted": encrypted,
    "a shape beyond memory": huge_shape,
    "images missing": lambda path, name: altered(path, **{name: None}),
    "no dimensions": lambda path, name: altered(path, **{name: np.float32(1)}),
    "wrong shape": lambda path, name: altered(path, **{name: np.zeros((3, 5), np.float32)}),
    "wrong size": lambda path, name: altered(path, **{name: np.zeros((9, 9, 9, 3), np.float32)}),
    "float64": as_type(np.float64),
    "integers": as_type(np.int64),
    "NaN": with_pixel(np.nan),
    "infinity": with_pixel(np.inf),
    "a pixel of 1.5": with_pixel(1.5),
    "a pixel below 0": with_pixel(-0.5),
}
READERS = {
    "common/check_results": ("digits1", ("{}",)),
    "method2_fgsm/visualize_mnist": ("digits2", ("{}", "--output", "{}/../out.npz")),
    "method1_noise_optimization/visualize_adv_examples": (
        "digits1",
        ("{}", "--output", "{}/../out.npz"),
    ),
    "method2_fgsm/visualize_imnet": ("photos", ("{}",)),
    "method2_fgsm/mnist_fast_gradient": ("samples", ("--samples", "{}")),
    "method1_noise_optimization/attack_mnist": ("samples", ("--samples", "{}")),
    "method1_noise_optimization/compare_methods": ("samples", ("--samples", "{}")),
    "method1_noise_optimization/every_pair": ("samples", ("--samples", "{}")),
    "logreg_softmax/exact": ("samples", ("--samples", "{}")),
}


@pytest.mark.parametrize("flaw", BROKEN_FILES)
@pytest.mark.parametrize("script", READERS)
def test_files_of_arrays(refuses, place, script, flaw):
    kind, arguments = READERS[script]
    path = place / 'it\'s a "näme" with\na break.npz'
    BROKEN_FILES[flaw](path, valid(kind, path))
    arguments = [text.replace("{}/..", str(place)).replace("{}", str(path)) for text in arguments]
    if "--samples" in arguments:
        arguments += ["--output", place / "out.npz"]
    refuses(script, *arguments, culprit='it\'s a "näme" with a break.npz', code=1)


@pytest.mark.parametrize("script", READERS)
def test_files_that_unpack_to_more_than_memory(refuses, place, script, monkeypatch):
    kind, arguments = READERS[script]
    path = place / "bomb.npz"
    name = valid(kind, path)
    altered(path, **{name: np.zeros((2000, 28, 28), np.float32)})
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(files, "MAX_BYTES", 1_000_000)
    arguments = [text.replace("{}/..", str(place)).replace("{}", str(path)) for text in arguments]
    if "--samples" in arguments:
        arguments += ["--output", place / "out.npz"]
    refuses(script, *arguments, culprit="bomb.npz unpacks to ", code=1)


@pytest.mark.parametrize(
    ("kind", "script", "config", "culprit"),
    [
        ("digits2", "method2_fgsm/visualize_mnist", {"model": "../../escaped"}, "which model"),
        ("digits2", "method2_fgsm/visualize_mnist", {"model": ["mlp"]}, "which model"),
        ("digits2", "method2_fgsm/visualize_mnist", {"eps": "a lot"}, "eps"),
        ("digits1", "method1_noise_optimization/visualize_adv_examples", {"method": 1}, "method 1"),
        ("photos", "method2_fgsm/visualize_imnet", {"model": "../mlp"}, "attacked photographs"),
        ("photos", "method2_fgsm/visualize_imnet", {"target": 4000}, "attacked photographs"),
        ("photos", "method2_fgsm/visualize_imnet", {"target": "cat"}, "attacked photographs"),
        ("digits2", "common/check_results", {"model": "fc" + "9" * 300}, "failed: "),
        ("digits2", "common/check_results", {"eps": float("nan")}, "failed: "),
        ("digits2", "common/check_results", {"target": 10**30}, "failed: "),
    ],
)
def test_settings_in_a_file_of_results(
    refuses, place, trained_weights, kind, script, config, culprit
):
    path = place / "results.npz"
    arrays, settings = photo_results() if kind == "photos" else digits_results(int(kind[-1]))
    results.save(path, **arrays, config=settings | config)
    refuses(script, path, culprit=culprit, code=1)


@pytest.mark.parametrize("script", ["method2_fgsm/visualize_mnist", "common/check_results"])
@pytest.mark.parametrize("config", ["{", "[" * 100_000, '"text"', "NaN"])
def test_settings_that_are_none(refuses, place, script, config):
    path = place / "results.npz"
    valid("digits2", path)
    altered(path, config=np.array(config))
    refuses(script, path, culprit="results.npz", code=1)


@pytest.mark.parametrize(
    "script",
    ["common/generate_5k", "logreg_softmax/train", "method2_fgsm/accuracy_vs_epsilon"],
)
@pytest.mark.parametrize("flaw", ["empty", "truncated", "a byte flipped", "a folder", "a pickle"])
def test_the_digits(refuses, place, monkeypatch, trained_weights, script, flaw):
    path = place / "mnist.npz"
    path.write_bytes(data.PATH.read_bytes())
    BROKEN_FILES[flaw](path, "x_test")
    monkeypatch.setattr(data, "PATH", path)
    arguments = () if script == "logreg_softmax/train" else ("--output", place / "out.npz")
    refuses(script, *arguments, culprit="mnist.npz", code=1)


# Weights -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def some_weights(tmp_path_factory):
    """A folder with weights of all three models, untrained ones."""
    folder = tmp_path_factory.mktemp("weights")
    for name in models.NAMES:
        models.build(name).save_weights(folder / f"{name}.weights.h5")
    return folder


@pytest.fixture
def trained_weights(place, some_weights):
    """Those weights where the scripts look for them."""
    shutil.copytree(some_weights, files.WEIGHTS, dirs_exist_ok=True)


def not_finite(path):
    model = models.build("mlp")
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    model.save_weights(path)


BROKEN_WEIGHTS = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:50_000]),
    "a text": lambda path: path.write_text("weights"),
    "a folder": lambda path: folder_instead(path, ""),
    "a link to itself": lambda path: link_to_itself(path, ""),
    "a pipe": lambda path: pipe_instead(path, ""),
    "a pickle": lambda path: pickled(path, ""),
    "another model's": lambda path: models.build("softmax").save_weights(path),
    "another size's": lambda path: models.build("fc50-10_relu").save_weights(path),
    "NaN": not_finite,
}


@pytest.mark.parametrize("flaw", BROKEN_WEIGHTS)
@pytest.mark.parametrize(
    "script",
    [
        "method2_fgsm/epsilon",
        "method2_fgsm/two_to_six",
        "method2_fgsm/mnist_fast_gradient",
        "method1_noise_optimization/attack_mnist",
        "method1_noise_optimization/every_pair",
    ],
)
def test_trained_weights(refuses, place, trained_weights, script, flaw):
    valid("samples", place / "samples.npz")
    BROKEN_WEIGHTS[flaw](models.weights_path("mlp"))
    arguments = ["--model", "mlp", "--output", place / "out.npz"]
    if script not in ("method2_fgsm/epsilon", "method2_fgsm/two_to_six"):
        arguments += ["--samples", place / "samples.npz"]
    refuses(script, *arguments, culprit="mlp.weights.h5", code=1)


def torch_file(path):
    """What a library that saves pickles leaves: a zip with a pickle in it, and code in that."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Executed()))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("model.pth", torch_file),
        ("model.weights.h5", torch_file),
        ("model.keras", torch_file),
        ("model.npz", lambda path: pickled(path, "")),
        ("missing.h5", lambda path: None),
        ("model.h5", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))),
        ("folder.h5", lambda path: path.mkdir()),
        ("mlp.weights.h5", lambda path: models.build("cnn").save_weights(path)),
    ],
)
@pytest.mark.parametrize("script", ["common/check_results", "method2_fgsm/imnet_fast_gradient"])
def test_weights_that_are_named(refuses, place, script, name, make):
    make(place / name)
    arguments = ("--output", place / "out.csv")
    if script == "common/check_results":
        valid("digits2", place / "results.npz")
        arguments = (place / "results.npz",)
    refuses(script, *arguments, "--weights", place / name, culprit=name, code=1)


# Photographs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    return efficientnet_lite0.load()


@pytest.fixture
def attack_refuses(refuses, place, network, monkeypatch):
    """A function: imnet_fast_gradient.py refuses, with its network loaded once for all."""
    attack_batch.load_network.cache_clear()
    monkeypatch.setattr(networks, "load", lambda name, weights=None: network)

    def run(*arguments, culprit):
        (place / "out.csv").write_bytes(PRECIOUS)
        options = ("--output", place / "out.csv")
        refuses("method2_fgsm/imnet_fast_gradient", *options, *arguments, culprit=culprit)

    return run


def huge_picture(path):
    # The size stands in the first bytes: 60,000 x 60,000 pixels.
    Image.new("L", (60, 60)).save(path, "PNG")
    content = bytearray(path.read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    path.write_bytes(content)


BROKEN_PHOTOS = {
    "empty": lambda path: path.write_bytes(b""),
    "a text": lambda path: path.write_text("no picture"),
    "a pickle": lambda path: pickled(path, ""),
    "a .pth with code": torch_file,
    "truncated": lambda path: (
        Image.effect_noise((300, 300), 9).save(path, "PNG"),
        path.write_bytes(path.read_bytes()[:2000]),
    ),
    "huge": huge_picture,
    "a link to itself": lambda path: path.symlink_to(path),
    "a pipe": os.mkfifo,
    "a format not read": lambda path: Image.new("RGB", (9, 9)).save(path, "TIFF"),
}


@pytest.mark.parametrize("flaw", BROKEN_PHOTOS)
def test_a_folder_with_nothing_readable(attack_refuses, place, flaw):
    folder = place / "photographs"
    folder.mkdir()
    BROKEN_PHOTOS[flaw](folder / "a 'photo' of\na pända.jpg")
    attack_refuses("--images", folder, culprit="skipped a 'photo' of a pända.jpg: ")


def test_a_folder_whose_links_go_round(attack_refuses, place):
    folder = place / "photographs"
    (folder / "deeper").mkdir(parents=True)
    (folder / "deeper" / "up").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    attack_refuses("--images", folder, culprit="itself")


@pytest.mark.parametrize(
    ("make", "culprit"),
    [
        (lambda path: None, "is not a folder"),
        (lambda path: path.write_text("a file"), "is not a folder"),
        (lambda path: path.mkdir(), "holds no file"),
        (lambda path: path.symlink_to(path), "is not a folder"),
    ],
)
def test_no_folder_of_photographs(attack_refuses, place, make, culprit):
    make(place / "photographs")
    attack_refuses("--images", place / "photographs", culprit=culprit)


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (("--save-images", "{}/out.npz"), "out.npz is not a folder"),
        (("--save-images", "{}/no/such"), "no does not exist"),
        (("--save-images", "{}/photographs/in"), "lies in"),
        (("--target", "unicorn"), "'unicorn'"),
        (("--target", "1000"), "'1000'"),
        (("--target", ""), "''"),
        (("--target", "²"), "'²'"),
        (("--eps", "1e999"), "'1e999'"),
        (("--batch-size", "9" * 5000), "whole number"),
        (("--output", "{}/rows.txt"), "does not end in .csv"),
    ],
)
def test_arguments_of_the_photo_attack(attack_refuses, place, arguments, culprit):
    (place / "photographs").mkdir()
    Image.new("RGB", (9, 9)).save(place / "photographs" / "grey.png")
    arguments = [text.format(place) for text in arguments]
    attack_refuses("--images", place / "photographs", *arguments, culprit=culprit)


@pytest.mark.parametrize(
    ("make", "culprit"),
    [
        (lambda path: path.write_text("nonsense"), "is not the list"),
        (lambda path: path.write_text("[" * 100_000), "is not the list"),
        (lambda path: path.write_text(json.dumps({"0": "tench"})), "is not the list"),
        (lambda path: path.write_text(json.dumps({str(i): i for i in range(1000)})), "1,000 names"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not the list"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: None, "not found"),
    ],
)
def test_the_list_of_classes(refuses, place, monkeypatch, make, culprit):
    make(place / "labels.json")
    monkeypatch.setattr(labels, "NAMES", place / "labels.json")
    labels.names.cache_clear()
    valid("photos", place / "results.npz")
    try:
        refuses("method2_fgsm/visualize_imnet", place / "results.npz", culprit=culprit, code=1)
    finally:
        labels.names.cache_clear()


# An interrupted run, tampered with ---------------------------------------------------------------


def tampered_row(column, value):
    def tamper(folder):
        row = dict.fromkeys(rows.COLUMNS[1:], "1") | {column: value}
        (folder / "out.partial.csv").write_text(
            ",".join(rows.COLUMNS) + f"\ngrey.png,{','.join(row.values())}\n"
        )

    return tamper


def settings_without(*names):
    def tamper(folder):
        found = results.load(folder / "out.partial.npz")
        config = {k: v for k, v in found.pop("config").items() if k not in names}
        results.save(folder / "out.partial.npz", **found, config=config)

    return tamper


TAMPERED_RUNS = {
    "rows are a folder": lambda folder: (folder / "out.partial.csv").mkdir(),
    "rows are no CSV": lambda folder: (folder / "out.partial.csv").write_bytes(b"\xff\0\n" * 9),
    "rows of another file": lambda folder: (folder / "out.partial.csv").write_text("a,b\n1,2\n"),
    "a label that is none": tampered_row("y_pred", "cat"),
    "a size that is none": tampered_row("linf", "large"),
    "an empty confidence": tampered_row("confidence_adversarial", ""),
    "images are empty": lambda folder: (folder / "out.partial.npz").write_bytes(b""),
    "images are a pickle": lambda folder: pickled(folder / "out.partial.npz", ""),
    "images are a folder": lambda folder: folder_instead(folder / "out.partial.npz", ""),
    "settings lack the paths": settings_without("paths"),
    "settings lack epsilon": settings_without("eps"),
}


@pytest.mark.parametrize("flaw", TAMPERED_RUNS)
def test_an_interrupted_run_that_was_tampered_with(attack_refuses, place, flaw):
    (place / "photographs").mkdir()
    Image.new("RGB", (9, 9)).save(place / "photographs" / "grey.png")
    arrays, _ = photo_results()
    config = {
        "script": "imnet_fast_gradient",
        "model": "efficientnet_lite0",
        "weights": None,
        "eps": 0.007,
        "target": None,
        "images": str(place / "photographs"),
        "batch_size": 1,
        "save_images": None,
        "paths": ["grey.png", "other.png"],
    }
    results.save(place / "out.partial.npz", **arrays, config=config)
    TAMPERED_RUNS[flaw](place)
    options = ("--images", place / "photographs", "--batch-size", 1, "--resume")
    attack_refuses(*options, culprit="out.partial.")


# Outputs -----------------------------------------------------------------------------------------

WRITERS = {
    "common/generate_5k": ("--count", 3),
    "method2_fgsm/epsilon": ("--model", "mlp", "--count", 1),
    "method2_fgsm/two_to_six": ("--model", "mlp", "--count", 1, "--eps", 0.1),
    "method2_fgsm/mnist_fast_gradient": ("--samples", "{}/samples.npz"),
    "method1_noise_optimization/attack_mnist": ("--samples", "{}/samples.npz"),
    "method2_fgsm/visualize_mnist": ("{}/digits2.npz",),
    "method1_noise_optimization/visualize_adv_examples": ("{}/digits1.npz",),
}
IMPOSSIBLE_OUTPUTS = {
    "in no folder": ("{}/no/such/file.npz", "does not exist"),
    "in a file": ("{}/out.npz/file.npz", "is not a folder"),
    "a folder": ("{}/img", "it is a folder"),
    "no regular file": ("/dev/null", "no regular file"),
    "a read-only place": ("/proc/file.npz", "cannot write /proc/file.npz"),
    "too long a name": ("{}/" + "n" * 300 + ".npz", "File name too long"),
    "a link to itself": ("{}/loop.npz", "loop.npz"),
    "a break in the name": ("{}/no\nsuch/file.npz", "no such"),
    "no name at all": ("", "it is a folder"),
}


@pytest.fixture
def inputs(place):
    """A valid file of each kind, and a link that leads to itself."""
    for kind in ("digits1", "digits2", "samples"):
        valid(kind, place / f"{kind}.npz")
    (place / "loop.npz").symlink_to(place / "loop.npz")
    return place


@pytest.mark.parametrize("where", IMPOSSIBLE_OUTPUTS)
@pytest.mark.parametrize("script", WRITERS)
def test_outputs_that_cannot_be_written(refuses, place, inputs, script, where):
    output, culprit = IMPOSSIBLE_OUTPUTS[where]
    arguments = [str(text).format(place) for text in WRITERS[script]]
    refuses(script, *arguments, "--output", output.format(place), culprit=culprit, code=1)


@pytest.fixture
def full_disk():
    """No file of this process may grow beyond a thousand bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    "script",
    [
        "common/generate_5k",
        "method2_fgsm/visualize_mnist",
        "method1_noise_optimization/visualize_adv_examples",
    ],
)
def test_a_disk_that_runs_full(refuses, place, inputs, capfd, monkeypatch, request, script):
    arguments = [str(text).format(place) for text in WRITERS[script]]
    request.getfixturevalue("full_disk")
    refuses(script, *arguments, "--output", place / "out.npz", culprit="cannot write", code=1)


def test_a_disk_that_runs_full_under_weights(place, request):
    """Keras writes these through HDF5, which has errors of its own."""
    path = models.weights_path("mlp")
    path.write_bytes(PRECIOUS)
    model = models.build("mlp")
    request.getfixturevalue("full_disk")
    with (
        pytest.raises(command.Failure, match=r"cannot write .*mlp\.weights\.h5"),
        files.replacing(path) as temporary,
    ):
        model.save_weights(temporary)
    assert path.read_bytes() == PRECIOUS
    assert sorted(os.listdir(files.WEIGHTS)) == ["mlp.weights.h5", "precious"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
@pytest.mark.parametrize("script", WRITERS)
def test_outputs_without_permission(refuses, place, inputs, script):
    (place / "img").chmod(0o500)
    arguments = [str(text).format(place) for text in WRITERS[script]]
    output = place / "img" / "file.npz"
    refuses(script, *arguments, "--output", output, culprit="Permission denied", code=1)


@pytest.mark.parametrize("script", ["logreg_softmax/train", "method2_fgsm/adversarial_training"])
@pytest.mark.parametrize("which", ["WEIGHTS", "IMG"])
def test_a_file_in_the_place_of_our_own_folder(
    refuses, place, monkeypatch, trained_weights, script, which
):
    (place / "file").write_bytes(PRECIOUS)
    monkeypatch.setattr(files, which, place / "file")
    refuses(script, culprit=str(place / "file"), code=1)


@pytest.mark.parametrize(
    ("script", "arguments", "culprit"),
    [
        ("method2_fgsm/visualize_mnist", ("{}/digits2.npz", "--rows", 2**31), "'2147483648'"),
        ("common/generate_5k", ("--count", 10_001), "10001"),
        ("common/generate_5k", ("--seed", 2**32), "'4294967296'"),
        ("common/train_mnist", ("--hidden", 10**6, 10**6), "1000000"),
        ("common/train_mnist", ("--epochs", 10**20), "'100000000000000000000'"),
        ("common/train_mnist", ("--learning-rate", "nan"), "'nan'"),
        ("method1_noise_optimization/attack_mnist", ("--learning-rate", "inf"), "'inf'"),
        ("method1_noise_optimization/attack_mnist", ("--target", "six"), "'six'"),
        ("method1_noise_optimization/attack_mnist", ("--model", "fc0-10_relu"), "'fc0-10_relu'"),
        ("method1_noise_optimization/attack_mnist", ("--model", "../mlp"), "'../mlp'"),
        ("method2_fgsm/mnist_fast_gradient", ("--eps", "-1"), "'-1'"),
    ],
)
def test_numbers_out_of_range(refuses, place, inputs, script, arguments, culprit):
    refuses(script, *[str(text).format(place) for text in arguments], culprit=culprit)


def test_the_reader_of_a_pipe_may_go(place, capfd, monkeypatch):
    """As in `script | head`: no traceback."""

    def main():
        raise BrokenPipeError

    monkeypatch.setattr(sys, "argv", ["script.py"])
    with open(place / "stdout", "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as end:
            command.run(main)
    assert end.value.code == 1
    assert capfd.readouterr().err == ""


def test_there_are_more_than_eighty_cells(request):
    here = [item for item in request.session.items if item.fspath == request.node.fspath]
    assert len(here) >= 80


def test_the_valid_files_are_valid(place, monkeypatch):
    """Else the cells above would pass for the wrong reason."""
    for kind in ("digits1", "digits2", "photos"):
        valid(kind, place / f"{kind}.npz")
        assert results.load(place / f"{kind}.npz")
    valid("samples", place / "samples.npz")
    assert len(data.load_samples(place / "samples.npz")[0]) == 5
