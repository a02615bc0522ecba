"""The attack on folders of photographs: what it writes, and that nothing stops it half way."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from common import files, models, results
from common.command import Failure
from common.imagenet import efficientnet_lite0, networks, photos, streamed_results
from method2_fgsm import imnet_fast_gradient, visualize_imnet

PHOTOGRAPHS = files.COMMON / "images"


@pytest.fixture(scope="module")
def network():
    return efficientnet_lite0.load()


@pytest.fixture
def attack(network, monkeypatch, tmp_path):
    """A function: run the script on the trained network; returns (rows, the .npz, its path)."""
    monkeypatch.setattr(networks, "load", lambda name, weights=None: network)

    def run(*arguments):
        output = tmp_path / "out.csv"
        imnet_fast_gradient.main([*map(str, arguments), "--output", str(output)])
        return list(streamed_results.read(output)), results.load(output.with_suffix(".npz")), output

    return run


def numbers(rows, column):
    return np.array([float(row[column]) for row in rows])


def test_the_nine_photographs_are_attacked_saved_and_drawn(attack, tmp_path, capsys):
    rows, kept, output = attack("--save-images", tmp_path / "png")
    printed = capsys.readouterr().out
    assert [row["path"] for row in rows] == sorted(
        path.name for path in PHOTOGRAPHS.iterdir() if path.name != "README.md"
    )
    fooled = [row["path"] for row in rows if row["fools"] == "1"]
    assert len(fooled) >= 5
    assert f"fooled               {len(fooled):7d}" in printed
    assert printed.splitlines()[-3:-1] == [
        f"wrote {output}",
        f"wrote {output.with_suffix('.npz')}",
    ]
    for row in rows:
        assert (row["fools"] == "1") == (row["y_pred"] != row["y_pred_adversarial"])
        assert (row["fools_8bit"] == "1") == (row["y_pred"] != row["y_pred_8bit"])
    np.testing.assert_allclose(numbers(rows, "linf"), 0.007, atol=1e-7)
    np.testing.assert_allclose(numbers(rows, "linf_8bit"), 1 / 255, atol=1e-7)

    x, noise = kept["xs"], kept["noises"]
    assert x.shape == (9, 224, 224, 3)
    assert np.abs(noise).max() <= 0.007 + 1e-7
    np.testing.assert_allclose(
        numbers(rows, "l2"), np.sqrt((noise.astype(float) ** 2).sum(axis=(1, 2, 3))), rtol=1e-4
    )
    inside = (x > 0.01) & (x < 0.99)
    np.testing.assert_allclose(noise[inside], 0.007 * kept["signs"][inside], atol=1e-6)
    assert kept["config"]["paths"] == [row["path"] for row in rows]

    for i, row in enumerate(rows):
        png = np.asarray(Image.open(tmp_path / "png" / f"{row['path']}.png"))
        original = np.round(x[i] * 255).astype(int)
        assert np.abs(png - original).max() <= 0.007 * 255
        assert ((png - original) * np.sign(noise[i]) >= 0).all()

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


def test_the_csv_is_what_the_network_says_of_the_saved_images(attack, network, tmp_path):
    rows, _, _ = attack("--save-images", tmp_path / "png")
    again = [photos.read(tmp_path / "png" / f"{row['path']}.png", 224) for row in rows]
    logits = network.predict_on_batch(np.stack(again) / np.float32(255))
    assert [int(row["y_pred_8bit"]) for row in rows] == logits.argmax(axis=1).tolist()


def test_a_step_of_nothing_changes_nothing(attack, tmp_path):
    rows, kept, _ = attack("--eps", 0, "--save-images", tmp_path / "png")
    assert all(row["y_pred"] == row["y_pred_adversarial"] == row["y_pred_8bit"] for row in rows)
    assert not kept["noises"].any()


def test_below_one_level_no_8_bit_image_but_the_original_is_within_eps():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = pixels / np.float32(255)
    for eps, levels in ((0.5 / 255, 0), (0.99 / 255, 0), (1 / 255, 1), (0.007, 1), (8 / 255, 8)):
        for sign in (1, -1):
            x_adv = np.clip(x + np.float32(sign * eps), 0, 1)
            rounded = imnet_fast_gradient.round_to_8_bits(pixels, x_adv)
            expected = np.clip(pixels.astype(int) + sign * levels, 0, 255)
            np.testing.assert_array_equal(rounded, expected)


def test_a_target_is_given_by_name_and_comes_nearer(attack, network, capsys):
    rows, kept, _ = attack("--target", "goldfish", "--eps", 0.02)
    assert kept["config"]["target"] == 1
    counted = [row for row in rows if row["fools"] != ""]
    # The goldfish is one already.
    assert {row["path"] for row in rows} - {row["path"] for row in counted} == {"goldfish.jpg"}
    assert all((row["fools"] == "1") == (row["y_pred_adversarial"] == "1") for row in counted)
    before, after = (
        models.softmax(network.predict_on_batch(images))[:, 1]
        for images in (kept["xs"], kept["xs"] + kept["noises"])
    )
    assert (after > before).all()
    assert "target goldfish" in capsys.readouterr().out


def test_folders_called_by_index_or_synset_give_the_true_label(attack, tmp_path, capsys):
    folder = tmp_path / "val"
    for name, photograph in (
        ("388", "panda.jpg"),
        ("n02124075", "cat.png"),
        ("n01443537", "coffee.jpg"),  # no goldfish: the network is wrong from the start
        ("unknown", "rocket.jpg"),
    ):
        (folder / name).mkdir(parents=True)
        shutil.copy(PHOTOGRAPHS / photograph, folder / name)
    rows, kept, _ = attack("--images", folder)
    assert {row["path"]: row["y_true"] for row in rows} == {
        "388/panda.jpg": "388",
        "n01443537/coffee.jpg": "1",
        "n02124075/cat.png": "285",
        "unknown/rocket.jpg": "",
    }
    assert [row["fools"] == "" for row in rows] == [False, True, False, False]
    assert [row["top5"] for row in rows] == ["1", "0", "1", ""]
    assert len(kept["xs"]) == 3
    printed = capsys.readouterr().out
    assert re.search(r"before +66\.7% +66\.7%", printed)
    assert re.search(r"left out +1 ", printed)


def test_hostile_files_are_skipped_one_line_each_and_counted(attack, tmp_path, capsys):
    folder = tmp_path / "mixed"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(PHOTOGRAPHS / "panda.jpg", folder / "sub")
    (folder / "empty.jpg").touch()
    (folder / "note\n.txt").write_text("no image")
    (folder / "cut.jpg").write_bytes((PHOTOGRAPHS / "panda.jpg").read_bytes()[:5000])
    os.mkfifo(folder / "pipe.png")
    rows, _, _ = attack("--images", folder)
    out, err = capsys.readouterr()
    assert [row["path"] for row in rows] == ["sub/panda.jpg"]
    assert len(re.findall(r"^skipped .*: .+$", err, re.M)) == 4
    assert re.search(r"^skipped files +4$", out, re.M)


def test_names_that_csv_and_unicode_do_not_like_survive(attack, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    names = ['a, "b".jpg', "line\nbreak.jpg", "ü.jpg", os.fsdecode(b"\xff.jpg")]
    for name in names:
        shutil.copy(PHOTOGRAPHS / "goldfish.jpg", folder / name)
    rows, _, output = attack("--images", folder)
    assert sorted(row["path"] for row in rows) == sorted(names)
    before = output.read_bytes()
    rows, _, _ = attack("--images", folder, "--resume")
    assert len(rows) == 4
    # A batch that was not full is computed again, and comes out the same.
    assert output.read_bytes() == before


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: (folder / "x").touch()])
def test_a_folder_without_a_readable_image_is_an_error(attack, tmp_path, make):
    folder = tmp_path / "nothing"
    folder.mkdir()
    make(folder)
    with pytest.raises(Failure, match=r"no (readable )?image"):
        attack("--images", folder)
    assert not list(tmp_path.glob("*.csv"))


def test_wrong_settings_end_before_the_network_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(networks, "load", lambda *_: pytest.fail("loaded"))
    main = imnet_fast_gradient.main
    output = ["--output", str(tmp_path / "a.csv")]
    for arguments, words in (
        (["--images", str(tmp_path / "none")], "is not a folder"),
        (["--target", "unicorn"], "not an ImageNet class"),
        (["--weights", str(tmp_path / "none.h5")], "none.h5 not found"),
        (["--save-images", str(PHOTOGRAPHS / "x")], "lies in"),
        (["--save-images", str(tmp_path / "no" / "where")], "cannot write"),
    ):
        with pytest.raises(Failure, match=words):
            main([*arguments, *output])
    for arguments in (["--output", "a.txt"], ["--eps", "2"], ["--model", "alexnet"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2


def test_resuming_with_other_settings_is_refused_and_touches_nothing(attack, tmp_path):
    _, _, output = attack()
    before = output.read_bytes()
    with pytest.raises(Failure, match=r"eps was 0\.007 and is 0\.01"):
        attack("--eps", 0.01, "--resume")
    assert output.read_bytes() == before
    output.with_suffix(".npz").unlink()
    with pytest.raises(Failure, match="start again without --resume"):
        attack("--resume")


# A process that attacks with a network too simple to take time, so that reading, streaming and
# writing are what is measured; it kills itself after a number of batches.
CHILD = """
import os, resource, signal, sys
import keras, numpy as np
from method2_fgsm import imnet_fast_gradient as script
from common.imagenet import networks

def load(name, weights=None):
    keras.utils.set_random_seed(0)
    image = keras.Input((224, 224, 3))
    pooled = keras.layers.Flatten()(keras.layers.AveragePooling2D(32)(image))
    # Weights large enough for the sign step to change labels.
    wide = keras.initializers.RandomNormal(stddev=3)
    return keras.Model(image, keras.layers.Dense(1000, kernel_initializer=wide)(pooled))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

kill_after, *arguments = sys.argv[1:]
attack, batches, early = script.attack, 0, None
def counted(*args):
    global batches, early
    batches += 1
    if batches == int(kill_after):
        os.kill(os.getpid(), signal.SIGKILL)
    if batches == 5:
        early = peak()
    return attack(*args)
networks.load, script.attack = load, counted
script.main(arguments)
print("grown by", peak() - (early or 0))
"""


@pytest.fixture(scope="module")
def hundreds(tmp_path_factory):
    """320 files that are hard links to a few photographs, some of them broken."""
    folder = tmp_path_factory.mktemp("many")
    small = folder.parent / "small.png"
    sources = []
    for i, name in enumerate(("panda.jpg", "goldfish.jpg", "cat.png", "camera.jpg", "rocket.jpg")):
        for turned in (False, True):
            source = folder.parent / f"{i}{turned}.jpg"
            image = Image.fromarray(photos.read(PHOTOGRAPHS / name, 240))
            (image.rotate(90) if turned else image).save(source)
            sources.append(source)
    small.write_bytes(b"no image")
    for i in range(320):
        target = folder / str(i % 7) / f"{i:04d}.jpg"
        target.parent.mkdir(exist_ok=True)
        os.link(small if i % 120 == 119 else sources[i % len(sources)], target)
    return folder


def child(folder, output, *arguments, kill_after=0):
    return subprocess.run(
        [
            *(sys.executable, "-c", CHILD, str(kill_after)),
            *("--images", str(folder), "--output", str(output), *arguments),
        ],
        env={**os.environ, "PYTHONPATH": str(files.ROOT)},
        capture_output=True,
        text=True,
    )


def test_hundreds_of_images_in_constant_memory_through_a_kill(hundreds, tmp_path):
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    done = child(hundreds, whole)
    assert done.returncode == 0, done.stderr
    rows = list(streamed_results.read(whole))
    assert len(rows) == len({row["path"] for row in rows}) == 318
    assert done.stderr.count("skipped ") == 2
    # The photographs of all batches together would be 190 MB.
    assert float(done.stdout.split()[-1]) < 100

    cut.write_text("the results of an earlier run")
    assert child(hundreds, cut, kill_after=5).returncode == -signal.SIGKILL
    assert cut.read_text() == "the results of an earlier run"
    partial = streamed_results.partial(cut)
    complete = partial.read_bytes()
    assert complete == whole.read_bytes()[: len(complete)]
    assert complete.count(b"\n") == 1 + 4 * 32
    # As if the process had been killed in the middle of a batch, and of a line.
    lines = whole.read_bytes().splitlines(keepends=True)
    partial.write_bytes(b"".join(lines[: 1 + 4 * 32 + 5]) + lines[1 + 4 * 32 + 5][:17])

    done = child(hundreds, cut, "--resume")
    assert done.returncode == 0, done.stderr
    assert cut.read_bytes() == whole.read_bytes()
    assert not partial.exists()
    one, other = (results.load(path.with_suffix(".npz")) for path in (whole, cut))
    assert json.dumps(one["config"]) == json.dumps(other["config"])
    np.testing.assert_array_equal(one["noises"], other["noises"])


def test_the_figures_refuse_what_is_not_theirs(tmp_path):
    path = tmp_path / "r.npz"
    x = np.zeros((2, 28, 28), np.float32)
    y = np.zeros(2, np.int64)
    results.save(
        path, xs=x, noises=x, y_trues=y, y_preds=y, y_preds_adversarial=y, config={"model": "mlp"}
    )
    with pytest.raises(Failure, match="does not hold attacked photographs"):
        visualize_imnet.main([str(path)])
    with pytest.raises(Failure, match="make it with"):
        visualize_imnet.main([str(tmp_path / "missing.npz")])


def test_the_columns_are_documented_and_in_order():
    documented = re.findall(r"^    (\w+(?:, \w+)*) {2,}\S", streamed_results.__doc__, re.M)
    names = [name for group in documented for name in group.split(", ")]
    assert tuple(names) == streamed_results.COLUMNS
