"""Method 1 on folders of photographs: what is written, saved, resumed, drawn and refused."""

import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from common import check_results, files, results
from common.command import Failure
from common.networks import efficientnet_lite, imagenet
from common.run import class_labels, photo_rows, photos
from method1_noise_optimization import attack_imnet, photo_noise, visualize_adv_examples

PHOTOGRAPHS = files.COMMON / "images"
OSTRICH = 9


@pytest.fixture(scope="module")
def simple():
    """A linear network that looks at the finest detail alone: one grey level says much to it."""
    image = keras.Input((32, 32, 3))
    detail = keras.layers.DepthwiseConv2D(2, strides=2, use_bias=False)
    pooled = keras.layers.Flatten()(keras.layers.AveragePooling2D(2)(detail(image)))
    network = keras.Model(image, keras.layers.Dense(1000)(pooled))
    board = np.array([[1, -1], [-1, 1]])[:, :, np.newaxis, np.newaxis]
    detail.set_weights([np.repeat(board, 3, axis=2)])
    kernel = np.random.default_rng(0).normal(size=(192, 1000))
    network.layers[-1].set_weights([kernel, np.zeros(1000)])
    return network


@pytest.fixture
def attacked(simple, monkeypatch, tmp_path):
    """A function: run the script on a network; returns (rows, the .npz, its path)."""
    network = [simple]
    monkeypatch.setattr(imagenet, "load", lambda name, weights=None: network[0])

    def run(*arguments, by=simple):
        network[0] = by
        monkeypatch.setattr(imagenet, "SIDE", by.input_shape[1])
        output = tmp_path / "out.csv"
        attack_imnet.main([*map(str, arguments), "--output", str(output)])
        found = list(photo_rows.read(output))
        return found, results.load(output.with_suffix(".npz")), output

    return run


@pytest.fixture
def three(tmp_path):
    folder = tmp_path / "three"
    folder.mkdir()
    for name in ("camera.jpg", "goldfish.jpg", "panda.jpg"):
        shutil.copy(PHOTOGRAPHS / name, folder)
    return folder


def says(network, image):
    return int(network.predict_on_batch(image[np.newaxis] / np.float32(255)).argmax())


@pytest.mark.slow
def test_any_other_class_is_nearer_than_an_ostrich(attacked, simple, three, tmp_path):
    steps = "--max-steps", 20
    ostriches, _, _ = attacked("--images", three, *steps)
    found, kept, path = attacked(
        "--images", three, *steps, "--target", "any", "--save-images", tmp_path / "png"
    )
    for row, ostrich in zip(found, ostriches, strict=True):
        assert row["fools"] == row["fools_8bit"] == "1"
        assert row["y_target"] == ""
        assert row["y_pred_adversarial"] == row["y_pred_8bit"] != row["y_pred"]
        assert float(row["l2"]) < float(ostrich["l2"])
    assert "y_targets" not in kept
    assert results.succeeded(kept).all()
    assert check_results.main([str(path.with_suffix(".npz"))]) == []
    written = visualize_adv_examples.main([str(path.with_suffix(".npz"))])
    assert written == [files.IMG / "the_nearest_class_efficientnet_lite0.png"]
    with pytest.raises(SystemExit):
        attacked("--images", three, "--target", "any", "--grey-levels", 1)


def test_every_photograph_and_every_file_is_an_ostrich(attacked, simple, three, tmp_path, capsys):
    found, kept, _ = attacked(
        "--images", three, "--max-steps", 30, "--save-images", tmp_path / "png"
    )
    assert [row["path"] for row in found] == ["camera.jpg", "goldfish.jpg", "panda.jpg"]
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


def test_no_value_moves_by_more_than_the_levels_asked_for(attacked, simple, three, tmp_path):
    for levels in (1, 3):
        png = tmp_path / f"png{levels}"
        found, kept, output = attacked(
            "--images", three, "--grey-levels", levels, "--max-steps", 30, "--save-images", png
        )
        change = kept["noises"] * 255
        np.testing.assert_allclose(change, np.round(change), atol=1e-3)
        assert np.abs(np.round(change)).max() == levels
        for row, x, noise in zip(found, kept["xs"], kept["noises"], strict=True):
            saved = np.asarray(Image.open(png / f"{row['path']}.png"))
            np.testing.assert_array_equal(saved, np.round((x + noise) * 255))
            assert says(simple, saved) == OSTRICH
        assert not check_results.report(output.with_suffix(".npz"))


def test_a_photograph_that_shows_its_target_is_counted_and_left_as_it_is(attacked, simple, three):
    shown = says(simple, photos.read(three / "panda.jpg", 32))
    found, kept, path = attacked("--images", three, "--target", shown, "--max-steps", 20)
    panda = found[2]
    assert (panda["fools"], panda["l2"], panda["y_pred"]) == ("", "0", str(shown))
    assert kept["config"]["paths"] == [row["path"] for row in found]
    assert check_results.main([str(path.with_suffix(".npz"))]) == []


def test_a_random_target_goes_with_the_name_and_the_seed(attacked, three):
    first, _, _ = attacked("--images", three, "--target", "random", "--max-steps", 1)
    targets = {row["path"]: row["y_target"] for row in first}
    assert len(set(targets.values())) == 3
    (three / "camera.jpg").unlink()
    (three / "below").mkdir()
    (three / "panda.jpg").rename(three / "below" / "panda.jpg")
    again, _, _ = attacked("--images", three, "--target", "random", "--max-steps", 1)
    assert {row["path"]: row["y_target"] for row in again} == {
        "below/panda.jpg": targets["panda.jpg"],
        "goldfish.jpg": targets["goldfish.jpg"],
    }
    other, _, _ = attacked("--images", three, "--target", "random", "--max-steps", 1, "--seed", 1)
    assert [row["y_target"] for row in other] != [row["y_target"] for row in again]
    drawn = {photo_noise.random_target(f"{i}.jpg", 0) for i in range(20_000)}
    assert drawn == set(range(1000))


def test_the_target_is_a_setting_of_the_run(attacked, three):
    attacked("--images", three, "--max-steps", 1)
    with pytest.raises(Failure, match=r"target was 9 and is 1"):
        attacked("--images", three, "--max-steps", 1, "--resume", "--target", "goldfish")


@pytest.mark.slow
def test_one_grey_level_turns_the_panda_into_an_ostrich(attacked, tmp_path):
    lite0 = efficientnet_lite.load()
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(PHOTOGRAPHS / "panda.jpg", folder)
    found, kept, output = attacked(
        "--images", folder, "--grey-levels", 1, "--max-steps", 60, by=lite0
    )
    assert class_labels.names()[int(found[0]["y_pred_adversarial"])] == "ostrich"
    assert (kept["noises"] != 0).mean() < 0.35

    figure, *_ = visualize_adv_examples.main([str(output.with_suffix(".npz"))])
    assert figure.name == "one_grey_level_efficientnet_lite0.png"
    assert Image.open(figure).size[0] > 300


def test_the_visualiser_draws_what_came_out_and_nothing_else(attacked, three, tmp_path, capsys):
    _, _, output = attacked("--images", three, "--max-steps", 20)
    npz = output.with_suffix(".npz")
    (figure,) = visualize_adv_examples.main([str(npz)])
    assert figure.name == "ostrich_efficientnet_lite0.png"
    before = figure.read_bytes()
    visualize_adv_examples.main([str(npz)])
    assert figure.read_bytes() == before
    assert len([line for line in capsys.readouterr().out.splitlines() if "ostrich" in line]) >= 3


def test_wrong_settings_end_before_the_network_is_loaded(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(imagenet, "load", lambda *_: pytest.fail("loaded"))
    output = ["--output", str(tmp_path / "a.csv")]
    for arguments, words in (
        (["--target", "unicorn"], "not an ImageNet class"),
        (["--target", "crane"], "classes 134 and 517"),
    ):
        with pytest.raises(Failure, match=words):
            attack_imnet.main([*arguments, *output])
    for arguments, words in (
        (["--grey-levels", "0"], "'0' is not a number of grey levels from 1 to 255"),
        (["--grey-levels", "256"], "'256' is not a number"),
        (["--grey-levels", "1", "--confidence", "1"], "'1' is not a probability"),
        (["--grey-levels", "1", "--method", "sgd"], "not allowed with"),
        (["--method", "fgsm"], "invalid choice"),
        (["--max-steps", "0"], "at least 1"),
    ):
        with pytest.raises(SystemExit) as end:
            attack_imnet.main([*arguments, *output])
        assert end.value.code == 2
        assert words in capsys.readouterr().err
