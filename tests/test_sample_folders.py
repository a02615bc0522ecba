"""A folder with a subfolder of pictures for each class, as samples of a network of one's own."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from common import results
from common.command import Failure
from common.networks import own_model
from common.run import photos
from method2_fgsm import mnist_fast_gradient

CLASSES = "2", "10", "b", "A"
IN_ORDER = "10", "2", "A", "b"


def saved(path, shape, classes=4):
    keras.utils.set_random_seed(0)
    layers = keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(classes)
    keras.Sequential([keras.Input(shape), *layers]).save(path)
    return path


def draw(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """Three pictures of 8 x 6 for each class, and what is none of these."""
    rng, folder = np.random.default_rng(0), tmp_path / "folder"
    for name in CLASSES:
        for place in ("10.png", "9.png", "more/0.png"):
            draw(folder / name / place, rng.integers(0, 256, (8, 6, 3), np.uint8))
    draw(folder / ".hidden" / "0.png", np.zeros((8, 6, 3), np.uint8))
    draw(folder / "beside.png", np.zeros((8, 6, 3), np.uint8))
    (folder / "b" / "notes.txt").write_text("no picture")
    return folder


def read(model, samples, limit=None, **args):
    args = {"pixels": "0..255", "seed": 0} | args
    return own_model.open_with_samples(SimpleNamespace(model=model, samples=samples, **args), limit)


def test_classes_labels_and_pixels_are_those_of_keras(folder, tmp_path):
    settings = {"image_size": (8, 6), "batch_size": None, "shuffle": False}
    theirs = keras.utils.image_dataset_from_directory(folder, **settings)
    images, labels = zip(*theirs.as_numpy_iterator(), strict=True)
    network, x, y, indices = read(saved(tmp_path / "n.keras", (8, 6, 3)), folder)
    assert network.names == IN_ORDER == tuple(theirs.class_names)
    assert indices is None
    # Those of one class may lie in another order.
    np.testing.assert_array_equal(y, labels)
    for label in range(4):
        ours = sorted((255 * x[y == label]).round().astype(int).tolist())
        assert ours == sorted(np.array(images)[y == label].astype(int).tolist())


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1)])
def test_a_grey_network_gets_the_luminance(tmp_path, shape):
    rng = np.random.default_rng(0)
    grey, colour = rng.integers(0, 256, (8, 6), np.uint8), rng.integers(0, 256, (8, 6, 3), np.uint8)
    draw(tmp_path / "f" / "a" / "0.png", grey)
    draw(tmp_path / "f" / "b" / "0.png", colour)
    _, x, _, _ = read(saved(tmp_path / "n.keras", shape, 2), tmp_path / "f")
    np.testing.assert_array_equal(x[0], grey / np.float32(255))
    luminance = keras.ops.image.rgb_to_grayscale(colour / 255.0)
    np.testing.assert_allclose(x[1], np.array(luminance)[..., 0], atol=0.6 / 255)


def test_pictures_are_cut_as_photographs_are(tmp_path):
    big = np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8)
    for name in "ab":
        draw(tmp_path / "f" / name / "0.png", big)
    _, x, y, _ = read(saved(tmp_path / "n.keras", (8, 6, 3), 2), tmp_path / "f")
    cut = photos.read(tmp_path / "f" / "a" / "0.png", (8, 6))
    np.testing.assert_array_equal(x, np.stack([cut, cut]) / np.float32(255))
    np.testing.assert_array_equal(y, [0, 1])


def test_fewer_are_drawn_as_from_a_file(folder, tmp_path):
    model = saved(tmp_path / "n.keras", (8, 6, 3))
    _, x, y, _ = read(model, folder)
    np.savez(tmp_path / "all.npz", images=x, labels=y)
    for seed in (0, 1):
        few, same = (
            read(model, path, 5, seed=seed)[1:3] for path in (folder, tmp_path / "all.npz")
        )
        np.testing.assert_array_equal(few[0], same[0])
        np.testing.assert_array_equal(few[1], same[1])


def test_what_cannot_be_read_is_named_and_left_out(folder, tmp_path, capsys):
    (folder / "2" / "10.png").write_bytes(b"no picture")
    _, x, y, _ = read(saved(tmp_path / "n.keras", (8, 6, 3)), folder)
    assert "skipped 2/10.png: not a " in capsys.readouterr().err
    np.testing.assert_array_equal(np.bincount(y), [3, 2, 3, 3])
    assert len(x) == 11


def test_an_attack_on_a_folder_is_that_on_its_pixels(folder, tmp_path):
    model, found = saved(tmp_path / "n.keras", (8, 6, 3)), []
    _, x, y, _ = read(model, folder)
    np.savez(tmp_path / "s.npz", images=x, labels=y, names=IN_ORDER)
    for samples in (folder, tmp_path / "s.npz"):
        own = "--model", model, "--pixels", "0..255", "--samples", samples
        options = *own, "--eps", "0.1", "--output", tmp_path / "r.npz"
        mnist_fast_gradient.main([*map(str, options)])
        found.append(results.load(tmp_path / "r.npz"))
    assert found[0]["config"] == found[1]["config"]
    np.testing.assert_array_equal(found[0]["noises"], found[1]["noises"])


def test_other_folders_are_one_line(place, refuses):
    model = saved(place / "n.keras", (8, 6, 3), 3)
    for name in "ab":
        draw(place / "two" / name / "0.png", np.zeros((8, 6, 3), np.uint8))
    (place / "none").mkdir()
    draw(place / "flat" / "0.png", np.zeros((8, 6, 3), np.uint8))
    script, flat = "method2_fgsm/mnist_fast_gradient", saved(place / "flat.keras", (144,), 2)
    for network, samples, culprit in (
        (model, "none", "no picture in the subfolders of"),
        (model, "flat", "no picture in the subfolders of"),
        (flat, "two", "a photograph is (height, width, 3)"),
    ):
        own = "--model", network, "--samples", place / samples, "--pixels", "0..1"
        refuses(script, *own, "--output", place / "r.npz", culprit=culprit)
    refuses(script, "--model", "mlp", "--samples", place / "two", culprit="two is not a file")
    with pytest.raises(Failure, match="3 classes apart, but there are 2 names"):
        read(model, place / "two")
