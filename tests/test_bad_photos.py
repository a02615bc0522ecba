"""The photograph scripts, given what they should not be given: one line, and nothing touched."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from common import results
from common.imagenet import efficientnet_lite, labels, networks, rows


class Executed:
    """Unpickling this runs code, which ends the test."""

    def __reduce__(self):
        return pytest.fail, ("executed",)


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


def pickled(path):
    path.write_bytes(pickle.dumps(Executed()))


def torch_file(path):
    """What a library that saves pickles leaves: a zip with a pickle in it, and code in that."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Executed()))


def folder_instead(path):
    path.unlink()
    path.mkdir()


# Photographs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    return efficientnet_lite.load("efficientnet_lite0")


@pytest.fixture
def attack_refuses(refuses, place, network, monkeypatch):
    """A function: imnet_fast_gradient.py refuses, with its network loaded once for all."""
    monkeypatch.setattr(networks, "load", lambda name, weights=None: network)

    def run(*arguments, culprit):
        (place / "out.csv").write_bytes(b"what was there before")
        options = ("--output", place / "out.csv")
        script = "method2_fgsm/imnet_fast_gradient"
        refuses(script, *options, *arguments, culprit=culprit, code=(1, 2))

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
    "a pickle": lambda path: pickled(path),
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
    arrays, config = photo_results()
    results.save(place / "results.npz", **arrays, config=config)
    try:
        refuses("method2_fgsm/visualize_imnet", place / "results.npz", culprit=culprit)
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
    "images are a pickle": lambda folder: pickled(folder / "out.partial.npz"),
    "images are a folder": lambda folder: folder_instead(folder / "out.partial.npz"),
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
