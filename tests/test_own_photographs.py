"""Photographs with a classifier of one's own: its side, its channels, its classes."""

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from common import results
from common.command import Failure
from common.networks import keras_file, mnist, own_model
from common.run import class_labels, photo_rows, photos
from method1_noise_optimization import attack_imnet, visualize_adv_examples
from method2_fgsm import imnet_fast_gradient

NAMES = "boat", "house", "tree", "cat"


def saved(path, *stack, shape=(12, 16, 3)):
    keras.Sequential([keras.Input(shape), *stack]).save(path)
    return path


def layers_to_four(*first):
    keras.utils.set_random_seed(1)  # before a layer is made: its initial weights are drawn then
    return *first, layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(4, activation="softmax")


@pytest.fixture
def album(tmp_path):
    """(a folder of photographs by class, a file of names, a network that takes 12 x 16)."""
    folder = tmp_path / "album"
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(12, 16), (40, 30), (24, 90), (31, 31)]):
        place = folder / NAMES[i]
        place.mkdir(parents=True)
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(NAMES) + "\n")
    return folder, names, saved(tmp_path / "n.keras", *layers_to_four(layers.Rescaling(1 / 255)))


def options(album, output):
    folder, names, network = album
    own = ["--model", str(network), "--classes", str(names)]
    return [*own, "--images", str(folder), "--output", str(output)]


def test_a_rectangle_is_the_middle_of_the_photograph(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 50, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(photos.read(tmp_path / "a.png", (20, 30)), image[:, 10:40])
    np.testing.assert_array_equal(photos.read(tmp_path / "a.png", (10, 50)), image[5:15])
    assert photos.read(tmp_path / "a.png", (7, 9)).shape == (7, 9, 3)


@pytest.mark.slow
def test_both_scripts_attack_photographs_and_their_results_are_drawn(album, tmp_path, capsys):
    csv = tmp_path / "r.csv"
    imnet_fast_gradient.main([*options(album, csv), "--eps", "0.2", "--labels", "folders"])
    # Sorted by folder.
    assert [row["y_true"] for row in photo_rows.read(csv)] == ["0", "3", "1", "2"]
    attack_imnet.main(
        [*options(album, csv), "--target", "Boat", "--save-images", str(tmp_path / "s")]
    )
    assert "target boat" in capsys.readouterr().out
    counted = [row for row in photo_rows.read(csv) if row["fools"]]
    assert counted
    assert {row["y_pred_adversarial"] for row in counted if row["fools"] == "1"} == {"0"}
    found = results.load(csv.with_suffix(".npz"))
    assert found["xs"].shape[1:] == (12, 16, 3)
    assert found["config"]["names"] == list(NAMES)
    model = keras_file.load(album[2], (12, 16, 3), "0..255")[0]
    np.testing.assert_array_equal(mnist.classify(model, found["xs"]), found["y_preds"])
    png = next((tmp_path / "s").rglob("*.png"))
    assert Image.open(png).size == (16, 12)
    drawn = tmp_path / "f.png"
    npz = str(csv.with_suffix(".npz"))
    assert visualize_adv_examples.main([npz, "--output", str(drawn)]) == [drawn]


def test_a_target_is_read_in_one_way_for_digits_and_photographs():
    """A number is an index, whatever the classes are called; else a name, in any case."""
    for names, text, index in (
        (("2", "0", "1"), "0", 0),
        (("2", "0", "1"), "002", 2),
        (("boat", "Tree"), "TREE", 1),
        (NAMES, "2", 2),
        (None, "6", 6),
    ):
        names = names or tuple("0123456789")
        network = own_model.Network("m", None, None, len(names), names=names)
        assert network.target(text) == index
        assert class_labels.index_of(text, names) == index
    for names, text, message in (
        (None, "0000000099", "--target '0000000099' is not a class: give its index from 0 to 9"),
        (None, "1" * 5000, "is not a class"),
        (("10", "20"), "10", "from 0 to 1"),
        (("a", "A"), "a", "--target 'a' is the name of the classes 0 and 1: give the index"),
        (("boat", "tree"), "boot", "close names: boat"),
    ):
        names = names or tuple("0123456789")
        network = own_model.Network("m", None, None, len(names), names=names)
        with pytest.raises(Failure, match=message):
            network.target(text)


def test_what_photographs_cannot_be_shown_to(album, place, refuses):
    folder, names, network = album
    script = "method2_fgsm/imnet_fast_gradient"
    own = "--model", network, "--images", folder
    few = place / "few.txt"
    few.write_text("boat\nhouse\n")
    refuses(script, *own, "--classes", few, culprit="4 classes apart, but there are 2 names")
    refuses(script, *own, "--classes", place / "none.txt", culprit="none.txt not found")
    refuses(script, *own, "--classes", names, "--target", "ostrich", culprit="'ostrich'")
    refuses(script, *own, "--weights", names, culprit="--weights")
    silent = saved(place / "silent.keras", *layers_to_four())
    refuses(script, "--model", silent, "--images", folder, culprit="give --pixels 0..1")
    refuses(script, "--model", "vgg", "--images", folder, culprit="'vgg'", code=(2,))
    flat = saved(place / "flat.keras", layers.Dense(4), shape=(576,))
    refuses(script, "--model", flat, "--images", folder, culprit="takes images")


def test_a_grey_network_sees_the_luminance_of_a_photograph(album, tmp_path):
    """As Pillow defines it: 0.299 R + 0.587 G + 0.114 B."""
    path = tmp_path / "grey.keras"
    for shape in ((12, 16, 1), (12, 16)):
        first = layers.Reshape((12, 16, 1)), layers.Rescaling(1 / 255)
        saved(path, *layers_to_four(*first), shape=shape)
        grey = keras.models.load_model(path)
        x = np.random.default_rng(0).random((3, 12, 16, 3), np.float32)
        model = keras_file.load(path, x.shape[1:], "0..255")[0]
        luminance = (255 * x @ np.float32([0.299, 0.587, 0.114])).reshape(3, *shape)
        z = mnist.predict(model, x)
        np.testing.assert_allclose(mnist.softmax(z), grey.predict(luminance, verbose=0), atol=1e-3)
    output = tmp_path / "r.csv"
    imnet_fast_gradient.main(
        [*options((*album[:2], path), output), "--eps", "0.3", "--pixels", "0..255"]
    )
    found = results.load(output.with_suffix(".npz"))
    assert found["xs"].shape[1:] == (12, 16, 3)
    assert (found["y_preds_adversarial"] != found["y_preds"]).any()
