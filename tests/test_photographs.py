"""Both methods on photographs: what is written, drawn, resumed and refused, and networks of one's
own with their sides, channels and classes."""

import fcntl
import os
import re
import shutil

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from common import check_results, files, results
from common.command import Failure
from common.networks import efficientnet_lite, imagenet, keras_file, mnist
from common.run import class_labels, engine, photo_rows, photo_run, photos
from method1_noise_optimization import attack_imnet, photo_noise, visualize_adv_examples
from method2_fgsm import imnet_fast_gradient, visualize_imnet

PHOTOGRAPHS = files.COMMON / "images"
OSTRICH = 9


@pytest.fixture(scope="module")
def simple():
    """A linear network that looks at the finest detail alone: one grey level says much to it."""
    image = keras.Input((32, 32, 3))
    detail = layers.DepthwiseConv2D(2, strides=2, use_bias=False)
    pooled = layers.Flatten()(layers.AveragePooling2D(2)(detail(image)))
    network = keras.Model(image, layers.Dense(1000)(pooled))
    board = np.array([[1, -1], [-1, 1]])[:, :, np.newaxis, np.newaxis]
    detail.set_weights([np.repeat(board, 3, axis=2)])
    kernel = np.random.default_rng(0).normal(size=(192, 1000))
    network.layers[-1].set_weights([kernel, np.zeros(1000)])
    return network


@pytest.fixture
def attack(simple, monkeypatch, tmp_path):
    """A function: run a script on `simple`, in EfficientNet's place; returns (rows, the .npz, the
    path of the CSV)."""
    monkeypatch.setattr(imagenet, "load", lambda name, weights=None: simple)
    monkeypatch.setattr(imagenet, "SIDE", 32)

    def run(script, *arguments):
        output = tmp_path / "out.csv"
        script.main([*map(str, arguments), "--output", str(output)])
        return list(photo_rows.read(output)), results.load(output.with_suffix(".npz")), output

    return run


def copied(folder, names):
    """Photographs of ours in `folder`: names there, and which each is of ours."""
    for name, photograph in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PHOTOGRAPHS / photograph, folder / name)
    return folder


@pytest.fixture
def three(tmp_path):
    return copied(
        tmp_path / "three", {f"{x}.jpg": f"{x}.jpg" for x in ("camera", "coffee", "panda")}
    )


def says(network, image):
    """The class of an image, or of one of our photographs by name."""
    image = photos.read(PHOTOGRAPHS / image, 32) if isinstance(image, str) else image
    return int(network.predict_on_batch(image[np.newaxis] / np.float32(255)).argmax())


def numbers(found, column):
    return np.array([float(row[column]) for row in found])


# The sign step -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_nine_photographs_are_attacked_saved_and_drawn(tmp_path, capsys):
    network, output = efficientnet_lite.load(), tmp_path / "out.csv"
    imnet_fast_gradient.main(["--save-images", str(tmp_path / "png"), "--output", str(output)])
    found, kept = list(photo_rows.read(output)), results.load(output.with_suffix(".npz"))
    assert [row["path"] for row in found] == list(photos.walk(PHOTOGRAPHS, pytest.fail))
    fooled = [row["path"] for row in found if row["fools"] == "1"]
    assert len(fooled) >= 5
    assert f"fooled               {len(fooled):7d}" in capsys.readouterr().out
    for row in found:
        assert (row["fools"] == "1") == (row["y_pred"] != row["y_pred_adversarial"])
        assert (row["fools_8bit"] == "1") == (row["y_pred"] != row["y_pred_8bit"])
    np.testing.assert_allclose(numbers(found, "linf"), 0.007, atol=1e-7)
    np.testing.assert_allclose(numbers(found, "linf_8bit"), 1 / 255, atol=1e-7)

    x, noise = kept["xs"], kept["noises"]
    assert np.abs(noise).max() <= 0.007 + 1e-7
    np.testing.assert_allclose(
        numbers(found, "l2"), np.sqrt((noise.astype(float) ** 2).sum(axis=(1, 2, 3))), rtol=1e-4
    )
    inside = (x > 0.01) & (x < 0.99)
    np.testing.assert_allclose(noise[inside], 0.007 * kept["signs"][inside], atol=1e-6)
    assert kept["config"]["paths"] == [row["path"] for row in found]

    for i, row in enumerate(found):
        png = np.asarray(Image.open(tmp_path / "png" / f"{row['path']}.png"))
        original = np.round(x[i] * 255).astype(int)
        assert np.abs(png - original).max() <= 0.007 * 255
        assert ((png - original) * np.sign(noise[i]) >= 0).all()
        assert int(row["y_pred_8bit"]) == says(network, png)

    npz = str(output.with_suffix(".npz"))
    written = visualize_imnet.main([npz])
    names = [f"{kind}_efficientnet_lite0.png" for kind in ("fgsm_imnet", "panda_style")]
    assert [path.name for path in written] == names
    first = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in visualize_imnet.main([npz])] == first
    with pytest.raises(Failure, match="photographs 0 to 8"):
        visualize_imnet.main([npz, "--index", "9"])


def test_the_picture_of_a_step_towards_a_target_is_the_step(attack, three):
    _, kept, _ = attack(imnet_fast_gradient, "--images", three, "--target", OSTRICH)
    inside = (kept["xs"] > 0.01) & (kept["xs"] < 0.99)
    np.testing.assert_allclose(kept["noises"][inside], 0.007 * kept["signs"][inside], atol=1e-6)
    for plus, formula in (("+", "−sign("), ("−", "sign(")):
        texts = [ax.texts[0].get_text() for ax in visualize_imnet.draw_sum(kept, 0).axes]
        assert f"{plus} 0.007 ×" in texts
        assert sum(text.startswith(formula) for text in texts) == 1
        kept["signs"] = -kept["signs"]  # as files of earlier versions hold it


def test_below_one_level_no_8_bit_image_but_the_original_is_within_eps():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = pixels / np.float32(255)
    for eps, levels in ((0, 0), (0.99 / 255, 0), (1 / 255, 1), (0.007, 1), (8 / 255, 8)):
        for sign in (1, -1):
            x_adv = np.clip(x + np.float32(sign * eps), 0, 1)
            rounded = photos.round_to_8_bits(None, pixels, x_adv, None)
            expected = np.clip(pixels.astype(int) + sign * levels, 0, 255)
            np.testing.assert_array_equal(rounded, expected)


def test_a_target_is_given_by_name_and_comes_nearer(attack, simple, capsys):
    shown = says(simple, "goldfish.jpg")
    name = class_labels.names()[shown]
    found, kept, _ = attack(imnet_fast_gradient, "--target", name, "--eps", 0.02)
    assert kept["config"]["target"] == shown
    for row in found:
        hit = str(int(row["y_pred_adversarial"] == str(shown)))
        assert row["fools"] == ("" if row["y_pred"] == str(shown) else hit)
    before, after = (
        mnist.softmax(simple.predict_on_batch(images))[:, shown]
        for images in (kept["xs"], kept["xs"] + kept["noises"])
    )
    others = kept["y_preds"] != shown
    assert (after > before)[others].all()
    assert f"target {name}" in capsys.readouterr().out


def test_folders_called_by_index_or_synset_give_the_true_label(attack, simple, tmp_path, capsys):
    panda, cat = says(simple, "panda.jpg"), says(simple, "cat.png")
    coffee = (says(simple, "coffee.jpg") + 1) % 1000  # wrong from the start
    synsets = class_labels.synsets()
    names = {
        f"{panda}/panda.jpg": str(panda),
        f"{synsets[cat]}/cat.png": str(cat),
        f"{synsets[coffee]}/coffee.jpg": str(coffee),
        "unknown/rocket.jpg": "",
    }
    folder = copied(tmp_path / "val", {name: os.path.basename(name) for name in names})
    found, _, _ = attack(imnet_fast_gradient, "--images", folder, "--labels", "folders")
    assert {row["path"]: row["y_true"] for row in found} == names
    counts = {os.path.basename(row["path"]): row["fools"] != "" for row in found}
    assert counts == {"panda.jpg": True, "cat.png": True, "coffee.jpg": False, "rocket.jpg": True}
    for row in found:
        assert (row["top5"] == "") == (row["y_true"] == "")
        if row["y_true"] == row["y_pred"]:
            assert row["top5"] == "1"
    printed = capsys.readouterr().out
    assert re.search(r"before +66\.7% ", printed)
    assert re.search(r"left out +1 ", printed)


def test_hostile_files_and_names_neither_stop_a_run_nor_spoil_its_rows(attack, tmp_path, capsys):
    odd = ['a, "b".jpg', "line\nbreak.jpg", "re\rturn.jpg", "ü.jpg", os.fsdecode(b"\xff.jpg")]
    # The fourteenth of a month is no class, unless one says so; and of many nine are drawn.
    names = [*odd, *(f"14/{i}.jpg" for i in range(6))]
    folder = copied(tmp_path / "mixed", dict.fromkeys(names, "panda.jpg"))
    (folder / "empty.jpg").touch()
    (folder / "note\n.png").write_text("no image")
    (folder / "cut.jpg").write_bytes((PHOTOGRAPHS / "panda.jpg").read_bytes()[:5000])
    os.mkfifo(folder / "pipe.png")
    found, kept, _ = attack(imnet_fast_gradient, "--images", folder, "--batch-size", 2)
    out, err = capsys.readouterr()
    assert sorted(row["path"] for row in found) == sorted(names)
    assert kept["config"]["paths"] == [row["path"] for row in found][: len(kept["xs"])]
    assert len(kept["xs"]) == 9
    assert {row["y_true"] for row in found} == {""}
    assert len(re.findall(r"^skipped .*: .+$", err, re.M)) == 4
    assert re.search(r"^skipped files +4$", out, re.M)
    with pytest.raises(Failure, match="no readable image"):
        attack(imnet_fast_gradient, "--images", folder / "empty.jpg")


# A run that is interrupted, or one of two --------------------------------------------------------


def test_a_run_that_is_refused_takes_nothing_from_the_one_that_has_the_lock(attack, tmp_path):
    output = tmp_path / "out.csv"
    output.write_text("kept")
    with photo_run.locked(output) as unfinished:
        for _ in range(2):
            with pytest.raises(Failure, match=r"another run is writing .*out\.csv"):
                attack(imnet_fast_gradient)
        assert output.read_text() == "kept"
        (unfinished / "settings.json").write_text("{}")
    # What a dead run leaves behind is no obstacle, and a step of nothing changes nothing.
    found, kept, _ = attack(imnet_fast_gradient, "--eps", 0)
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "out.npz"]
    assert all(row["y_pred"] == row["y_pred_adversarial"] for row in found)
    assert not kept["noises"].any()


@pytest.mark.parametrize("made_anew", [False, True])
def test_no_lock_is_had_on_a_folder_that_has_just_gone(tmp_path, monkeypatch, made_anew):
    folder, flock = tmp_path / "out.unfinished", fcntl.flock

    def late(descriptor, how):
        folder.rmdir()  # as the run does that ends here
        if made_anew:
            folder.mkdir()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(Failure, match="another run"), photo_run.locked(tmp_path / "out.csv"):
        pytest.fail("locked what is gone")
    assert folder.exists() == made_anew


def test_a_complete_run_may_be_resumed_and_another_one_not(attack, three, monkeypatch):
    how = imnet_fast_gradient, "--images", three
    _, _, output = attack(*how)
    before = output.read_bytes()
    monkeypatch.setattr(imagenet, "load", lambda *_: pytest.fail("attacked again"))
    attack(*how, "--resume")
    with pytest.raises(Failure, match=r"eps was 0\.007 and is 0\.01"):
        attack(*how, "--eps", 0.01, "--resume")
    copied(three, {"cat.png": "cat.png"})
    with pytest.raises(Failure, match=r'photographs was "3 with .* and is "4 with'):
        attack(*how, "--resume")
    assert output.read_bytes() == before


def test_a_run_interrupted_after_any_batch_resumes_to_the_same_files_and_table(
    attack, tmp_path, monkeypatch, capsys
):
    def table():
        return re.sub(r"photographs a second.*", "", capsys.readouterr().out)

    monkeypatch.setattr(engine, "cores", lambda: 1)
    names = ("camera.jpg", "coffee.jpg", "panda.jpg", "rocket.jpg")
    folder = copied(tmp_path / "photographs", {name: name for name in names})
    for name in ("a.jpg", "b.jpg", "d.jpg"):  # two alone in their batch, one beside another
        (folder / name).write_text("no image")
    arguments = (imnet_fast_gradient, "--images", folder, "--batch-size", 2)
    _, _, output = attack(*arguments)
    npz, real = output.with_suffix(".npz"), photo_rows.attack_batch
    whole, printed = (output.read_bytes(), npz.read_bytes()), table()
    for count in range(4):
        left = iter(range(count))

        def interrupted(*arguments, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr(photo_rows, "attack_batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            attack(*arguments)
        assert (output.read_bytes(), npz.read_bytes()) == whole
        assert output.with_suffix(".unfinished").exists() == (count > 0)
        monkeypatch.setattr(photo_rows, "attack_batch", real)
        for path in (output, npz):
            path.unlink()
        attack(*arguments, "--resume")
        assert (output.read_bytes(), npz.read_bytes()) == whole
        assert table() == printed
        assert not output.with_suffix(".unfinished").exists()


# Everything is an ostrich ------------------------------------------------------------------------


@pytest.mark.slow
def test_every_photograph_and_every_file_is_an_ostrich(attack, simple, three, tmp_path, capsys):
    how = attack_imnet, "--images", three, "--max-steps", 30, "--save-images", tmp_path / "png"
    found, kept, output = attack(*how)
    for i, row in enumerate(found):
        assert row["fools"] == row["fools_8bit"] == "1"
        assert row["y_target"] == row["y_pred_adversarial"] == row["y_pred_8bit"] == str(OSTRICH)
        noise = kept["noises"][i].astype(np.float64)
        assert float(row["l2"]) == pytest.approx(np.sqrt((noise**2).sum()), rel=1e-3)
        assert float(row["linf"]) == pytest.approx(np.abs(noise).max(), rel=1e-3)
        assert float(row["distortion"]) == pytest.approx(np.sqrt((noise**2).mean()), rel=1e-3)
        # The file holds, where the noise itself, rounded, would not.
        original = photos.read(three / row["path"], 32).astype(int)
        png = np.asarray(Image.open(tmp_path / "png" / f"{row['path']}.png"))
        assert says(simple, png) == OSTRICH
        levels = (png - original) / 255
        assert float(row["l2_8bit"]) == pytest.approx(np.sqrt((levels**2).sum()), rel=1e-3)
        assert float(row["changed_8bit"]) == pytest.approx((levels != 0).mean(), rel=1e-3)
        assert float(row["l2_8bit"]) >= 0.99 * float(row["l2"])
    assert (kept["y_targets"] == OSTRICH).all()
    assert "fooled after 8 bits        3  100.0%" in capsys.readouterr().out
    with pytest.raises(Failure, match=r"target was 9 and is 1"):
        attack(*how, "--resume", "--target", "goldfish")
    (figure,) = visualize_adv_examples.main([str(output.with_suffix(".npz"))])
    assert figure.name == "ostrich_efficientnet_lite0.png"
    assert len([line for line in capsys.readouterr().out.splitlines() if "ostrich" in line]) >= 3

    ostriches = numbers(found, "l2")
    found, kept, output = attack(*how, "--target", "any")
    assert (numbers(found, "l2") < ostriches).all()
    for row in found:
        assert row["fools"] == row["fools_8bit"] == "1"
        assert row["y_target"] == ""
        assert row["y_pred_adversarial"] == row["y_pred_8bit"] != row["y_pred"]
    assert "y_targets" not in kept
    npz = str(output.with_suffix(".npz"))
    assert check_results.main([npz]) == []
    (figure,) = visualize_adv_examples.main([npz])
    assert figure.name == "the_nearest_class_efficientnet_lite0.png"


def test_no_value_moves_by_more_than_the_levels_asked_for(attack, simple, three, tmp_path):
    png = tmp_path / "png"
    how = "--grey-levels", 3, "--max-steps", 30, "--save-images", png
    found, kept, output = attack(attack_imnet, "--images", three, *how)
    change = kept["noises"] * 255
    np.testing.assert_allclose(change, np.round(change), atol=1e-3)
    assert np.abs(np.round(change)).max() == 3
    for row, x, noise in zip(found, kept["xs"], kept["noises"], strict=True):
        saved = np.asarray(Image.open(png / f"{row['path']}.png"))
        np.testing.assert_array_equal(saved, np.round((x + noise) * 255))
        assert says(simple, saved) == OSTRICH
    assert check_results.main([str(output.with_suffix(".npz"))]) == []


def test_a_photograph_that_shows_its_target_is_counted_and_left_as_it_is(attack, simple, three):
    shown = says(simple, "panda.jpg")
    found, _, path = attack(attack_imnet, "--images", three, "--target", shown, "--max-steps", 20)
    panda = found[2]
    assert (panda["fools"], panda["l2"], panda["y_pred"]) == ("", "0", str(shown))
    assert check_results.main([str(path.with_suffix(".npz"))]) == []


def test_a_random_target_goes_with_the_name_and_the_seed(attack, three):
    def targets(*seed):
        how = attack_imnet, "--images", three, "--target", "random", "--max-steps", 1
        return {os.path.basename(row["path"]): row["y_target"] for row in attack(*how, *seed)[0]}

    first = targets()
    assert len(set(first.values())) == 3
    (three / "camera.jpg").unlink()
    (three / "below").mkdir()
    (three / "panda.jpg").rename(three / "below" / "panda.jpg")
    assert targets() == {name: first[name] for name in ("panda.jpg", "coffee.jpg")}
    assert targets("--seed", 1) != targets()
    drawn = {photo_noise.random_target(f"{i}.jpg", 0) for i in range(20_000)}
    assert drawn == set(range(1000))


@pytest.mark.slow
def test_one_grey_level_turns_the_panda_into_an_ostrich(tmp_path):
    output = tmp_path / "out.csv"
    how = "--grey-levels", "1", "--max-steps", "60", "--output", str(output)
    attack_imnet.main(["--images", str(PHOTOGRAPHS / "panda.jpg"), *how])
    (row,), kept = photo_rows.read(output), results.load(output.with_suffix(".npz"))
    assert class_labels.names()[int(row["y_pred_adversarial"])] == "ostrich"
    assert (kept["noises"] != 0).mean() < 0.35
    figure, *_ = visualize_adv_examples.main([str(output.with_suffix(".npz"))])
    assert figure.name == "one_grey_level_efficientnet_lite0.png"


# A network of one's own --------------------------------------------------------------------------

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
        (folder / NAMES[i]).mkdir(parents=True)
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        photos.save_png(folder / NAMES[i] / f"{i}.png", pixels)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(NAMES) + "\n")
    return folder, names, saved(tmp_path / "n.keras", *layers_to_four(layers.Rescaling(1 / 255)))


@pytest.mark.slow
def test_both_scripts_attack_photographs_and_their_results_are_drawn(album, tmp_path, capsys):
    (folder, names, network), csv = album, tmp_path / "r.csv"
    own = ["--model", network, "--classes", names, "--images", folder, "--output", csv]
    own = [str(word) for word in own]
    imnet_fast_gradient.main([*own, "--eps", "0.2", "--labels", "folders"])
    # Sorted by folder.
    assert [row["y_true"] for row in photo_rows.read(csv)] == ["0", "3", "1", "2"]
    saving = "--save-images", str(tmp_path / "s")
    attack_imnet.main([*own, "--target", "Boat", *saving])
    assert "target boat" in capsys.readouterr().out
    counted = [row for row in photo_rows.read(csv) if row["fools"]]
    assert counted
    assert {row["y_pred_adversarial"] for row in counted if row["fools"] == "1"} == {"0"}
    found = results.load(csv.with_suffix(".npz"))
    assert found["xs"].shape[1:] == (12, 16, 3)
    assert found["config"]["names"] == list(NAMES)
    model = keras_file.load(network, (12, 16, 3), "0..255")[0]
    np.testing.assert_array_equal(mnist.classify(model, found["xs"]), found["y_preds"])
    assert Image.open(next((tmp_path / "s").rglob("*.png"))).size == (16, 12)
    drawn = tmp_path / "f.png"
    npz = str(csv.with_suffix(".npz"))
    assert visualize_adv_examples.main([npz, "--output", str(drawn)]) == [drawn]


def test_a_grey_network_sees_the_luminance_of_a_photograph(tmp_path):
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


# What is refused ---------------------------------------------------------------------------------

SIGN, OSTRICHES = "method2_fgsm/imnet_fast_gradient", "method1_noise_optimization/attack_imnet"


@pytest.mark.parametrize(
    ("script", "arguments", "culprit"),
    [
        (SIGN, "--images {0}/none", "none not found"),
        (SIGN, "--images {0}/empty", "no image in"),
        (SIGN, "--labels {0}/none", "none not found"),
        (SIGN, "--model vgg", "'vgg'"),
        (SIGN, "--weights {0}/none.h5", "none.h5 not found"),
        (SIGN, "--save-images {0}/many/x --images {0}/many", "lies among"),
        (SIGN, "--save-images {0}/no/where", "cannot write"),
        (SIGN, "--output {0}/a.txt", "does not end in .csv"),
        (OSTRICHES, "--target unicorn", "not an ImageNet class"),
        (OSTRICHES, "--target any --grey-levels 1", "--target any goes with"),
        (OSTRICHES, "--grey-levels 256", "'256' is not a number of grey levels from 1 to 255"),
        (OSTRICHES, "--grey-levels 1 --confidence 1", "'1' is not a probability"),
    ],
)
def test_wrong_settings_end_before_the_network_is_loaded(
    refuses, place, monkeypatch, script, arguments, culprit
):
    monkeypatch.setattr(imagenet, "load", lambda *_: pytest.fail("loaded"))
    (place / "empty").mkdir()
    copied(place / "many", {"panda.jpg": "panda.jpg"})
    words = ["--output", place / "a.csv", *arguments.format(place).split()]
    refuses(script, *words, culprit=culprit, code=(1, 2))


def test_what_photographs_cannot_be_shown_to(album, place, refuses):
    folder, names, network = album
    few = place / "few.txt"
    few.write_text("boat\nhouse\n")
    silent = saved(place / "silent.keras", *layers_to_four())
    for model, option, value, culprit in (
        (network, "--classes", few, "4 classes apart, but there are 2 names"),
        (network, "--weights", names, "--weights"),
        (silent, "--eps", "0", "give --pixels 0..1"),
    ):
        refuses(SIGN, "--images", folder, "--model", model, option, value, culprit=culprit)
