"""Handwriting as it comes from phones and drawing programs, made into MNIST's digits."""

import matplotlib
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw, ImageFont

from common import check_results, data, drawn_digits, files, handwriting, models, my_digits, results
from common.command import Failure
from common.imagenet import photos
from method1_noise_optimization import attack_mnist
from method2_fgsm import mnist_fast_gradient

FONT = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"


def typed(text, size=(300, 200), high=100, at=None, ink=(0, 0, 0), paper=(255, 255, 255)):
    """A picture of typed digits, uint8 (height, width, 3)."""
    image = Image.new("RGB", size, paper)
    middle = at or (size[0] / 2, size[1] / 2)
    font = ImageFont.truetype(FONT, high)
    ImageDraw.Draw(image).text(middle, str(text), fill=ink, font=font, anchor="mm")
    return np.asarray(image)


def grainy(picture, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8)


def shaded(picture):
    """The same paper in light that falls off to 55 % at one corner."""
    y, x = np.mgrid[0 : 1 : picture.shape[0] * 1j, 0 : 1 : picture.shape[1] * 1j]
    return (picture * (1 - 0.45 * x * y)[..., np.newaxis]).astype(np.uint8)


def pasted(digit, rng):
    """A digit of MNIST, ten times as large, somewhere on white paper."""
    large = Image.fromarray((digit * 255).astype(np.uint8)).resize((280, 280))
    picture = np.zeros((350, 500))
    top, left = rng.integers(0, 70), rng.integers(0, 220)
    picture[top : top + 280, left : left + 280] = large
    return np.repeat((250 - 0.9 * picture).astype(np.uint8)[..., np.newaxis], 3, axis=2)


def test_digits_of_mnist_blown_up_come_back_as_they_were(digits, trained):
    x = digits[0][:40]
    rng = np.random.default_rng(0)
    back = np.stack([handwriting.like_mnist(pasted(digit, rng)) for digit in x])
    assert back.dtype == np.float32
    assert back.shape == x.shape
    assert np.abs(back - x).mean() < np.abs(x).mean() / 3
    for model in trained.values():
        agree = models.classify(model, back) == models.classify(model, x)
        assert agree.mean() > 0.9


WAYS = {
    "dark on light": lambda digit: typed(digit),
    "light on dark": lambda digit: typed(digit, ink=(230, 230, 220), paper=(30, 50, 40)),
    "in equally bright colours": lambda digit: typed(digit, ink=(200, 40, 40), paper=(40, 125, 40)),
    "small and off centre": lambda digit: typed(digit, high=40, at=(250, 160)),
    "cut close": lambda digit: typed(digit, size=(66, 80)),
    "on grainy paper": lambda digit: grainy(typed(digit), 25),
    "in a shadow": lambda digit: shaded(typed(digit)),
    "in pencil": lambda digit: grainy(typed(digit, ink=(170,) * 3, paper=(225, 220, 210)), 6),
}


@pytest.mark.parametrize("way", WAYS)
def test_pen_paper_light_and_place_make_no_difference(way, trained):
    """Of typed digits the weakest model reads some wrongly; it should do so in every way."""
    plain = np.stack([handwriting.like_mnist(typed(digit)) for digit in range(10)])
    images = np.stack([handwriting.like_mnist(WAYS[way](digit)) for digit in range(10)])
    assert np.abs(images - plain).mean() < 0.05
    assert (models.classify(trained["cnn"], images) == np.arange(10)).sum() >= 8
    # As LeCun made them: the ink fits 20 x 20, and its mass is in the middle.
    for image in images:
        rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) == 19
        for axis in (0, 1):
            middle = (image.sum(axis=1 - axis) * np.arange(28)).sum() / image.sum()
            assert 13.4 < middle < 14.6


@pytest.mark.parametrize("pen", [0.015, 0.2])
def test_thin_and_thick_strokes_are_read(pen, trained):
    settings = ((450, 350), (0.4, 0.5), 0.6, pen, (20, 20, 60), (250, 245, 240), 0.2, 4)
    images = [handwriting.like_mnist(drawn_digits.draw(digit, *settings)) for digit in range(10)]
    for model in trained.values():
        assert (models.classify(model, np.stack(images)) == np.arange(10)).sum() >= 8


PAPER = np.full((150, 200, 3), 220, np.uint8)
HALVES = np.concatenate([typed(3, (200, 120)), typed(4, (200, 120))])


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (PAPER, "blank"),
        (shaded(PAPER), "blank"),
        (grainy(PAPER, 12), "blank"),
        (np.zeros((1, 1, 3), np.uint8), "blank"),
        (typed(".", high=20), "specks"),
        (typed("27"), "several digits"),
        (typed("1 1"), "several digits"),
        (HALVES, "several digits"),
        (typed("—"), "wider than any digit"),
    ],
)
def test_a_picture_without_one_digit_is_refused(picture, reason):
    with pytest.raises(photos.Unreadable, match=reason):
        handwriting.like_mnist(picture)


def test_a_phones_photograph_is_turned_upright_and_made_smaller(tmp_path):
    upright = Image.fromarray(typed(7, (2250, 3000), high=900, at=(800, 1300)))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "7.jpg", exif=exif)
    picture = handwriting.read(tmp_path / "7.jpg")
    assert picture.shape == (700, 525, 3)
    image = handwriting.like_mnist(picture)
    assert np.abs(image - handwriting.like_mnist(typed(7))).mean() < 0.02


def test_ink_on_a_transparent_picture_is_seen(tmp_path):
    image = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    font = ImageFont.truetype(FONT, 200)
    ImageDraw.Draw(image).text((150, 150), "5", fill=(0, 0, 0, 255), font=font, anchor="mm")
    image.save(tmp_path / "5.png")
    seen = handwriting.like_mnist(handwriting.read(tmp_path / "5.png"))
    assert np.abs(seen - handwriting.like_mnist(typed(5))).mean() < 0.02


@pytest.mark.parametrize(
    ("name", "label"),
    [("2.png", 2), ("2_second.jpg", 2), ("0 (1).png", 0), ("9-b.jpeg", 9), ("7", 7)],
)
def test_the_name_tells_the_label(name, label):
    assert handwriting.label_of(f"folder/{name}") == label


@pytest.mark.parametrize("name", ["IMG_7.png", "2024-07-01.jpg", "12.png", "x.png", "3rd.png"])
def test_other_names_tell_none(name):
    with pytest.raises(photos.Unreadable, match="--label"):
        handwriting.label_of(name)


def test_the_ten_that_the_script_draws_are_read_by_all_three_models(trained):
    images = np.stack([handwriting.like_mnist(picture) for picture in drawn_digits.ten()])
    for model in trained.values():
        assert (models.classify(model, images) == np.arange(10)).sum() >= 8


def test_pictures_become_samples_that_an_attack_takes(tmp_path, trained, capsys):
    for name, picture in (("2.png", typed(2)), ("3_b.png", typed(3)), ("4.png", PAPER)):
        Image.fromarray(picture).save(tmp_path / name)
    (tmp_path / "5.png").write_bytes(b"no picture")
    pictures = [str(tmp_path / name) for name in ("2.png", "3_b.png", "4.png", "5.png")]
    output, figure = tmp_path / "mine.npz", tmp_path / "mine.png"
    arguments = ["--output", str(output), "--figure", str(figure)]
    assert my_digits.main([*pictures, *arguments]) == [output, figure]
    left_out = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1:3] for line in left_out] == [
        [str(tmp_path / "4.png"), handwriting.BLANK],
        [str(tmp_path / "5.png"), "not a JPEG, PNG, BMP, GIF, WebP, AVIF, TIFF or JPEG 2000 image"],
    ]
    images, labels, indices = data.load_samples(output)
    np.testing.assert_array_equal(images[0], handwriting.like_mnist(typed(2)))
    assert labels.tolist() == [2, 3]
    assert indices is None
    assert Image.open(figure).size[0] > 400


@pytest.mark.parametrize("attack", [attack_mnist, mnist_fast_gradient])
def test_attacks_take_samples_without_indices(attack, tmp_path, trained):
    samples, attacked = tmp_path / "s.npz", tmp_path / "a.npz"
    images = [handwriting.like_mnist(picture) for picture in drawn_digits.ten()[:3]]
    np.savez(samples, images=np.stack(images), labels=[0, 1, 2])
    attack.main(["--model", "softmax", "--samples", str(samples), "--output", str(attacked)])
    assert "indices" not in results.load(attacked)
    assert check_results.main([str(attacked)]) == []


def test_where_no_digit_is_left_the_script_says_why(tmp_path, trained):
    Image.fromarray(PAPER).save(tmp_path / "4.png")
    arguments = ["--output", str(tmp_path / "x.npz"), "--figure", str(tmp_path / "x.png")]
    with pytest.raises(Failure, match=r"4\.png: blank.*and 1 more"):
        my_digits.main([str(tmp_path / "4.png"), str(tmp_path / "absent.png"), *arguments])
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize("arguments", [["--label", "x", "a.png"], ["--label", "7"]])
def test_a_label_that_is_none_is_refused(arguments):
    with pytest.raises(SystemExit) as exit:
        my_digits.main(arguments)
    assert exit.value.code == 2


def test_without_pictures_it_draws_its_own(tmp_path, trained):
    output = tmp_path / "x.npz"
    written = my_digits.main(["--output", str(output)])
    assert written == [output, files.IMG / "my_digits.png"]
    assert data.load_samples(output)[1].tolist() == list(range(10))
