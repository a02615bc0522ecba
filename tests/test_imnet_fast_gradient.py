"""The attack on folders of photographs: what it writes, and that nothing stops it half way."""

import fcntl
import os
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from common import files, results
from common.command import Failure
from common.networks import efficientnet_lite, imagenet, mnist
from common.run import class_labels, engine, photo_rows, photo_run, photos
from method2_fgsm import imnet_fast_gradient, visualize_imnet

PHOTOGRAPHS = files.COMMON / "images"


@pytest.fixture(scope="module")
def linear():
    """A linear network in EfficientNet's place, of 32 x 32 pixels."""
    keras.utils.set_random_seed(0)
    layers = keras.layers.Flatten(), keras.layers.Dense(1000)
    return keras.Sequential([keras.Input((32, 32, 3)), *layers])


@pytest.fixture
def attack(linear, monkeypatch, tmp_path):
    """A function: run the script on the linear network; returns (rows, the .npz, its path)."""
    monkeypatch.setattr(imagenet, "load", lambda name, weights=None: linear)
    monkeypatch.setattr(imagenet, "SIDE", 32)

    def run(*arguments):
        output = tmp_path / "out.csv"
        imnet_fast_gradient.main([*map(str, arguments), "--output", str(output)])
        return list(photo_rows.read(output)), results.load(output.with_suffix(".npz")), output

    return run


def copied(folder, names):
    """Photographs of ours in `folder`: names there, and which each is of ours."""
    for name, photograph in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PHOTOGRAPHS / photograph, folder / name)
    return folder


def seen_as(network, photograph):
    """The class of one of our photographs."""
    x = photos.read(PHOTOGRAPHS / photograph, 32)[np.newaxis] / np.float32(255)
    return int(network.predict_on_batch(x).argmax())


def numbers(found, column):
    return np.array([float(row[column]) for row in found])


@pytest.mark.slow
def test_the_nine_photographs_are_attacked_saved_and_drawn(tmp_path, capsys):
    network, output = efficientnet_lite.load(), tmp_path / "out.csv"
    imnet_fast_gradient.main(["--save-images", str(tmp_path / "png"), "--output", str(output)])
    found, kept = list(photo_rows.read(output)), results.load(output.with_suffix(".npz"))
    printed = capsys.readouterr().out
    assert [row["path"] for row in found] == sorted(
        path.name for path in PHOTOGRAPHS.iterdir() if path.name != "README.md"
    )
    fooled = [row["path"] for row in found if row["fools"] == "1"]
    assert len(fooled) >= 5
    assert f"fooled               {len(fooled):7d}" in printed
    for row in found:
        assert (row["fools"] == "1") == (row["y_pred"] != row["y_pred_adversarial"])
        assert (row["fools_8bit"] == "1") == (row["y_pred"] != row["y_pred_8bit"])
    np.testing.assert_allclose(numbers(found, "linf"), 0.007, atol=1e-7)
    np.testing.assert_allclose(numbers(found, "linf_8bit"), 1 / 255, atol=1e-7)

    x, noise = kept["xs"], kept["noises"]
    assert x.shape == (9, 224, 224, 3)
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
        logits = network.predict_on_batch(png[np.newaxis] / np.float32(255))
        assert int(row["y_pred_8bit"]) == logits.argmax()

    written = visualize_imnet.main([str(output.with_suffix(".npz"))])
    assert [path.name for path in written] == [
        "fgsm_imnet_efficientnet_lite0.png",
        "panda_style_efficientnet_lite0.png",
    ]
    first = [path.read_bytes() for path in written]
    visualize_imnet.main([str(output.with_suffix(".npz"))])
    assert [path.read_bytes() for path in written] == first
    with pytest.raises(Failure, match="photographs 0 to 8"):
        visualize_imnet.main([str(output.with_suffix(".npz")), "--index", "9"])


def test_a_step_of_nothing_changes_nothing(attack, tmp_path):
    found, kept, _ = attack("--eps", 0, "--save-images", tmp_path / "png")
    assert all(row["y_pred"] == row["y_pred_adversarial"] == row["y_pred_8bit"] for row in found)
    assert not kept["noises"].any()


def test_below_one_level_no_8_bit_image_but_the_original_is_within_eps():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = pixels / np.float32(255)
    for eps, levels in ((0.5 / 255, 0), (0.99 / 255, 0), (1 / 255, 1), (0.007, 1), (8 / 255, 8)):
        for sign in (1, -1):
            x_adv = np.clip(x + np.float32(sign * eps), 0, 1)
            rounded = photos.round_to_8_bits(None, pixels, x_adv, None)
            expected = np.clip(pixels.astype(int) + sign * levels, 0, 255)
            np.testing.assert_array_equal(rounded, expected)


def test_a_target_is_given_by_name_and_comes_nearer(attack, linear, capsys):
    shown = seen_as(linear, "goldfish.jpg")
    name = class_labels.names()[shown]
    found, kept, _ = attack("--target", name, "--eps", 0.02)
    assert kept["config"]["target"] == shown
    counted = [row for row in found if row["fools"] != ""]
    assert {row["path"] for row in found if row not in counted} == {
        row["path"] for row in found if row["y_pred"] == str(shown)
    }
    assert all(
        (row["fools"] == "1") == (row["y_pred_adversarial"] == str(shown)) for row in counted
    )
    before, after = (
        mnist.softmax(linear.predict_on_batch(images))[:, shown]
        for images in (kept["xs"], kept["xs"] + kept["noises"])
    )
    assert (after > before).all()
    assert f"target {name}" in capsys.readouterr().out


def test_folders_called_by_index_or_synset_give_the_true_label(attack, linear, tmp_path, capsys):
    panda, cat = (seen_as(linear, name) for name in ("panda.jpg", "cat.png"))
    coffee = (seen_as(linear, "coffee.jpg") + 1) % 1000  # wrong from the start
    synsets = class_labels.synsets()
    names = {
        f"{panda}/panda.jpg": str(panda),
        f"{synsets[cat]}/cat.png": str(cat),
        f"{synsets[coffee]}/coffee.jpg": str(coffee),
        "unknown/rocket.jpg": "",
    }
    folder = copied(tmp_path / "val", {name: os.path.basename(name) for name in names})
    found, kept, _ = attack("--images", folder, "--labels", "folders")
    assert {row["path"]: row["y_true"] for row in found} == names
    counts = {os.path.basename(row["path"]): row["fools"] != "" for row in found}
    assert counts == {"panda.jpg": True, "cat.png": True, "coffee.jpg": False, "rocket.jpg": True}
    for row in found:
        assert (row["top5"] == "") == (row["y_true"] == "")
        if row["y_true"] == row["y_pred"]:
            assert row["top5"] == "1"
    assert len(kept["xs"]) == 4
    printed = capsys.readouterr().out
    assert re.search(r"before +66\.7% ", printed)
    assert re.search(r"left out +1 ", printed)


def test_hostile_files_and_names_neither_stop_a_run_nor_spoil_its_rows(attack, tmp_path, capsys):
    odd = ['a, "b".jpg', "line\nbreak.jpg", "re\rturn.jpg", "ü.jpg", os.fsdecode(b"\xff.jpg")]
    # The fourteenth of a month is no class, unless one says so.
    names = [*odd, "14/panda.jpg"]
    folder = copied(tmp_path / "mixed", dict.fromkeys(names, "panda.jpg"))
    (folder / "empty.jpg").touch()
    (folder / "note\n.png").write_text("no image")
    (folder / "cut.jpg").write_bytes((PHOTOGRAPHS / "panda.jpg").read_bytes()[:5000])
    os.mkfifo(folder / "pipe.png")
    found, kept, output = attack("--images", folder)
    out, err = capsys.readouterr()
    assert sorted(row["path"] for row in found) == sorted(kept["config"]["paths"]) == sorted(names)
    assert {row["y_true"] for row in found} == {""}
    assert len(re.findall(r"^skipped .*: .+$", err, re.M)) == 4
    assert re.search(r"^skipped files +4$", out, re.M)
    before = output.read_bytes()
    attack("--images", folder, "--resume")
    assert output.read_bytes() == before


def test_a_run_that_is_refused_takes_nothing_from_the_one_that_has_the_lock(attack, tmp_path):
    output = tmp_path / "out.csv"
    output.write_text("kept")
    with photo_run.locked(output) as unfinished:
        for _ in range(2):
            with pytest.raises(Failure, match=r"another run is writing .*out\.csv"):
                attack()
        assert output.read_text() == "kept"
        (unfinished / "settings.json").write_text("{}")
    # What a dead run leaves behind is no obstacle.
    attack("--eps", 0)
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "out.npz"]


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


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: (folder / "x.png").touch()])
def test_a_folder_without_a_readable_image_is_an_error(attack, tmp_path, make):
    folder = tmp_path / "nothing"
    folder.mkdir()
    make(folder)
    with pytest.raises(Failure, match=r"no (readable )?image"):
        attack("--images", folder)
    assert not list(tmp_path.glob("*.csv"))


def test_wrong_settings_end_before_the_network_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(imagenet, "load", lambda *_: pytest.fail("loaded"))
    main = imnet_fast_gradient.main
    output = ["--output", str(tmp_path / "a.csv")]
    for arguments, words in (
        (["--images", str(tmp_path / "none")], "none not found"),
        (["--labels", str(tmp_path / "none")], "none not found"),
        (["--target", "unicorn"], "not an ImageNet class"),
        (["--weights", str(tmp_path / "none.h5")], "none.h5 not found"),
        (["--save-images", str(PHOTOGRAPHS / "x")], "lies among"),
        (["--save-images", str(tmp_path / "no" / "where")], "cannot write"),
        (["--output", str(tmp_path / "a.txt")], "does not end in .csv"),
    ):
        with pytest.raises(Failure, match=words):
            main([*output, *arguments])
    for arguments in (["--eps", "2"], ["--model", "alexnet"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2


def test_a_complete_run_may_be_resumed_and_another_one_not(attack, tmp_path, monkeypatch):
    folder = copied(tmp_path / "photographs", {"panda.jpg": "panda.jpg"})
    _, _, output = attack("--images", folder)
    before = output.read_bytes()
    monkeypatch.setattr(imagenet, "load", lambda *_: pytest.fail("attacked again"))
    attack("--images", folder, "--resume")
    with pytest.raises(Failure, match=r"eps was 0\.007 and is 0\.01"):
        attack("--images", folder, "--eps", 0.01, "--resume")
    copied(folder, {"coffee.jpg": "coffee.jpg"})
    with pytest.raises(Failure, match=r'photographs was "1 with .* and is "2 with'):
        attack("--images", folder, "--resume")
    assert output.read_bytes() == before


def test_a_run_interrupted_after_any_batch_resumes_to_the_same_files_and_table(
    attack, tmp_path, monkeypatch, capsys
):
    def table():
        return re.sub(r"photographs a second.*", "", capsys.readouterr().out)

    monkeypatch.setattr(engine, "cores", lambda: 1)
    names = ("camera.jpg", "coffee.jpg", "panda.jpg", "rocket.jpg")
    folder = copied(tmp_path / "photographs", {name: name for name in names})
    (folder / "a.jpg").write_text("no image")  # alone in its batch
    (folder / "d.jpg").write_text("no image")  # its batch has a row less
    (folder / "b.jpg").write_text("no image")
    arguments = ("--images", folder, "--batch-size", 2)
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


# A process that attacks with a network too simple to take time, so that reading, streaming and
# writing are what is measured.
CHILD = """
import resource
from method2_fgsm import imnet_fast_gradient
from common.run import photo_rows

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

attack, peaks = photo_rows.attack_batch, []
def measured(*args):
    peaks.append(peak())
    return attack(*args)
photo_rows.attack_batch = measured
imnet_fast_gradient.main()
print("grown by", peak() - peaks[4])
"""


@pytest.mark.slow
def test_hundreds_of_images_take_constant_memory(tmp_path):
    layers = keras.layers.Rescaling(1 / 255), keras.layers.AveragePooling2D(32)
    layers += keras.layers.Flatten(), keras.layers.Dense(9)
    keras.Sequential([keras.Input((224, 224, 3)), *layers]).save(tmp_path / "simple.keras")
    source = tmp_path / "panda.png"
    photos.save_png(source, photos.read(PHOTOGRAPHS / "panda.jpg", 240))
    for i in range(320):
        target = tmp_path / "many" / str(i % 7) / f"{i:04d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
    output = tmp_path / "out.csv"
    own = ["--model", tmp_path / "simple.keras", "--images", tmp_path / "many"]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *own, "--output", output],
        env={**os.environ, "PYTHONPATH": str(files.ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(photo_rows.read(output))) == 320
    # The photographs of all batches together would be 190 MB.
    assert float(done.stdout.split()[-1]) < 100


def test_the_columns_are_documented():
    readme = (files.COMMON / "README.md").read_text(encoding="utf-8")
    documented = readme[readme.index("The columns of the photographs' CSV") :]
    assert set(photo_rows.COLUMNS) <= set(re.findall(r"`(\w+)`", documented))
