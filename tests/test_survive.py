"""Noise that survives: the treatments are Pillow's, the whole photographs are whole, and what the
table counts is what the files say."""

import io

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image, ImageCms

from common.networks import mnist
from common.run import photo_rows, photos
from common.search import treatments
from common.search.random_numbers import generators
from method1_noise_optimization import attack, attack_imnet, survive

SIDE = 32


def smooth_image(seed, height, width, mode="RGB"):
    rng = np.random.default_rng(seed)
    small = rng.integers(60, 196, (4, 4, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture(scope="module")
def network():
    """A linear network whose slopes are coarse, from [0, 1] to three logits."""
    coarse = np.random.default_rng(1).normal(size=(3, 3, 4, 4)).astype(np.float32)
    size = SIDE, SIDE
    planes = [[np.asarray(Image.fromarray(c).resize(size, 3)) for c in part] for part in coarse]
    kernel = np.moveaxis(planes, [0, 1], [3, 2]).reshape(-1, 3) / 64
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Flatten(), layers.Dense(3)])
    model.layers[-1].set_weights([kernel, np.zeros(3)])
    return model


def images(count):
    pixels = [np.asarray(smooth_image(seed, SIDE, SIDE)) for seed in range(count)]
    return np.stack(pixels) / np.float32(255)


def test_the_treatments_are_those_of_pillow():
    image = smooth_image(0, 40, 56)
    for name, how in treatments.NAMED.items():
        kind, number = name.split("_")
        file, back = io.BytesIO(), (56, 40)
        if kind == "scaled":
            size = (round(56 * int(number) / 224), round(40 * int(number) / 224))
            expected = image.resize(size, Image.Resampling.BICUBIC)
            expected = expected.resize(back, Image.Resampling.BICUBIC)
        else:
            image.save(file, kind, quality=int(number))
            expected = Image.open(file).convert("RGB")
        found = treatments.treated(np.asarray(image), how)
        np.testing.assert_array_equal(found, np.asarray(expected))
    assert treatments.sent(smooth_image(0, 900, 1200)).size == (600, 450)
    assert treatments.sent(image).size == image.size


def test_a_random_way_keeps_the_size_and_depends_on_its_generator_alone():
    image = np.asarray(smooth_image(0, 40, 56))
    ways = [
        treatments.treated(image, treatments.on_its_way, np.random.default_rng(seed))
        for seed in [*range(20), *range(20)]
    ]
    assert {way.shape for way in ways} == {image.shape}
    assert all((a == b).all() for a, b in zip(ways[:20], ways[20:], strict=True))
    assert len({way.tobytes() for way in ways}) > 15


def test_the_draws_of_an_image_do_not_depend_on_its_place_in_the_batch(network):
    x = images(4)
    y = (mnist.classify(network, x) + 1) % 3
    alone, _ = survive.search(network, x[2:3], y[2:3], max_steps=5)
    among, _ = survive.search(network, x, y, max_steps=5)
    np.testing.assert_allclose(alone[0], among[2], atol=1e-6)


def test_most_treatments_leave_the_target_and_less_noise_would_not_do(network):
    x = images(6)
    y = (mnist.classify(network, x) + 1) % 3
    x_adv, _ = survive.search(network, x, y, max_steps=30)
    np.testing.assert_allclose(x_adv * 255, np.round(x_adv * 255), atol=1e-4)
    shares = []
    for points in x_adv, x + 0.6 * (x_adv - x):
        pixels = survive.to_pixels(points)
        draws = np.stack(
            [
                treatments.treated(image, treatments.on_its_way, rng)
                for image, rng in zip(pixels, generators(pixels, 5), strict=True)
                for _ in range(30)
            ]
        )
        hits = mnist.classify(network, draws / np.float32(255)) == np.repeat(y, 30)
        shares.append(hits.mean())
    assert shares[0] > 0.8
    assert shares[1] < shares[0] - 0.3


def test_what_is_its_target_already_stays_and_a_slope_that_is_not_finite_is_refused(network):
    x = images(2)
    x_adv, _ = survive.search(network, x, mnist.classify(network, x), max_steps=3)
    np.testing.assert_array_equal(x_adv, x)
    image = keras.Input((SIDE, SIDE, 3))
    z = network(image)
    broken = keras.Model(image, z + keras.ops.sqrt(0 * z))
    with pytest.raises(ValueError, match="finite"):
        survive.search(broken, x, (mnist.classify(network, x) + 1) % 3, max_steps=3)


def test_without_a_treatment_it_is_hardly_longer_than_the_smallest_noise(network):
    """The slopes are coarse, so that nothing is lost where they are smoothed."""
    x = images(6)
    y = (mnist.classify(network, x) + 1) % 3
    found, _ = survive.search(network, x, y, treatment=lambda image, rng: image, max_steps=60)
    least, _ = attack.search(network, x, y, method="minimal")
    assert (mnist.classify(network, found) == y).all()
    assert attack.sizes(found - x).mean() < 1.05 * attack.sizes(least - x).mean()


# The whole photograph ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(96, 96), (70, 200), (301, 113), (20, 26)])
def test_the_noise_lies_on_the_middle_that_the_network_sees(tmp_path, size):
    Image.new("RGB", size[::-1], (128, 128, 128)).save(tmp_path / "a.png")
    noise = np.zeros((SIDE, SIDE, 3), np.float32)
    noise[8:20, 10:24] = 0.2
    whole = photos.save_whole(tmp_path / "w.jpg", tmp_path / "a.png", noise, 100)
    assert whole.size == size[::-1]
    seen = photos.cut(whole, SIDE) / 255 - 128 / 255
    coarse = [part.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3)) for part in (seen, noise)]
    np.testing.assert_allclose(*coarse, atol=0.05)
    np.testing.assert_allclose(seen[10:18, 12:22], 0.2, atol=0.03)
    changed = np.abs(np.asarray(whole).astype(int) - 128).max(axis=2) > 12
    scale = min(size) / SIDE
    assert changed.sum() == pytest.approx(12 * 14 * scale**2, rel=0.4)


def test_upright_with_the_profile_of_its_colours_and_nothing_else(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "where I live"
    image = smooth_image(0, 40, 60)
    image.save(tmp_path / "a.jpg", exif=exif, icc_profile=profile)
    smooth_image(1, 40, 60, "L").save(tmp_path / "grey.png", icc_profile=b"x" * 16 + b"GRAY" * 30)
    smooth_image(2, 40, 60, "RGBA").save(tmp_path / "alpha.png")
    noise = np.zeros((SIDE, SIDE, 3), np.float32)
    for name in "a.jpg", "grey.png", "alpha.png":
        photos.save_whole(tmp_path / f"{name}.whole.jpg", tmp_path / name, noise, 90)
    whole = Image.open(tmp_path / "a.jpg.whole.jpg")
    assert whole.size == (40, 60)
    assert whole.info["icc_profile"] == profile
    assert not whole.getexif()
    grey = Image.open(tmp_path / "grey.png.whole.jpg")
    assert grey.mode == "RGB"
    assert "icc_profile" not in grey.info
    assert Image.open(tmp_path / "alpha.png.whole.jpg").mode == "RGB"


def test_what_is_too_large_to_be_decoded_whole_comes_at_half_its_size(tmp_path, monkeypatch):
    smooth_image(0, 8000, 9600).save(tmp_path / "a.jpg")
    monkeypatch.setattr(photos, "MAX_PIXELS", 30_000_000)
    noise = np.zeros((SIDE, SIDE, 3), np.float32)
    whole = photos.save_whole(tmp_path / "w.jpg", tmp_path / "a.jpg", noise, 90)
    assert whole.size == (4800, 4000)


# The script --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_counts_what_is_in_the_folder(network, tmp_path, capsys):
    folder, saved = tmp_path / "photographs", tmp_path / "saved"
    folder.mkdir()
    for seed, name in enumerate(["a.png", "a.bmp", "写真 1.png", "small.png", "wide.jpg"]):
        side = 20 if name == "small.png" else 50
        smooth_image(seed, side, 2 * side if name == "wide.jpg" else side).save(folder / name)
    network.save(tmp_path / "n.keras")
    own = ["--model", str(tmp_path / "n.keras"), "--pixels", "0..1", "--images", str(folder)]
    how = ["--method", "survive", "--max-steps", "20", "--save-images", str(saved), "--treatments"]
    output = tmp_path / "r.csv"
    attack_imnet.main([*own, *how, "--target", "1", "--output", str(output)])
    rows, printed = list(photo_rows.read(output)), capsys.readouterr().out
    counted = [row for row in rows if row["fools"]]
    assert len(rows) == 5
    assert counted
    for row in rows:
        whole = Image.open(saved / f"{row['path']}.whole.jpg")
        assert whole.size == Image.open(folder / row["path"]).size
        x = np.asarray(photos.cut(whole, SIDE))[np.newaxis] / np.float32(255)
        assert int(network(x).numpy().argmax()) == int(row["y_pred_whole"])
    for name in ("whole", "messenger", "jpeg_60", "scaled_160"):
        column = [row[f"y_pred_{name}"] for row in counted]
        lost = sum(now != row["y_pred"] for now, row in zip(column, counted, strict=True))
        line = next(line for line in printed.splitlines() if line.startswith(f"{name} "))
        assert line.split()[1:] == [str(lost), str(column.count("1"))]
    assert np.mean([float(row["survives"]) for row in counted]) > 0.7


def test_treatments_are_of_files(tmp_path):
    with pytest.raises(Exception, match="--save-images"):
        attack_imnet.main(["--treatments", "--output", str(tmp_path / "r.csv")])
