"""Handwriting as it comes from phones and drawing programs, made into MNIST's digits."""

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from common import check_results, data, files, handwriting, my_digits, results
from common.command import Failure
from common.networks import mnist
from common.run import photos
from method2_fgsm import mnist_fast_gradient

FONT = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
PAPER = np.full((150, 200, 3), 220, np.uint8)


def typed(text, size=(300, 200), high=100, at=None, ink=(0, 0, 0), paper=(255, 255, 255)):
    """A picture of typed digits, uint8 (height, width, channels)."""
    image = Image.new("RGBA" if len(paper) == 4 else "RGB", size, paper)
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


def crossed(picture, *lines, ink=0, width=4):
    """The picture with straight lines drawn over it."""
    image = Image.fromarray(picture)
    for line in lines:
        ImageDraw.Draw(image).line(line, (ink,) * 3, width)
    return np.asarray(image)


def test_digits_of_mnist_blown_up_come_back_as_they_were(digits):
    """Ten times as large, off the middle, as dark ink on white paper."""
    x = digits[0][:40]
    back = []
    for digit in x:
        large = Image.fromarray((digit * 255).astype(np.uint8)).resize((280, 280))
        ink = np.pad(np.asarray(large, float), ((50, 20), (180, 40)))[..., np.newaxis]
        back.append(handwriting.like_mnist((250 - 0.9 * ink).astype(np.uint8).repeat(3, axis=2)))
    back = np.stack(back)
    assert back.dtype == np.float32
    assert np.abs(back - x).mean() < np.abs(x).mean() / 4


DUST = ((20, 30, 23, 33), (250, 0, 253, 3), (100, 190, 103, 193))
WAYS = {
    "light on dark": lambda digit: typed(digit, ink=(230, 230, 220), paper=(30, 50, 40)),
    "in equally bright colours": lambda digit: typed(digit, ink=(200, 40, 40), paper=(40, 125, 40)),
    "small and off centre": lambda digit: typed(digit, high=40, at=(250, 160)),
    "cut close": lambda digit: typed(digit, size=(66, 80)),
    "on grainy paper in a shadow": lambda digit: shaded(grainy(typed(digit), 15)),
    "with dust, and a line below": lambda digit: crossed(typed(digit), *DUST, (90, 170, 210, 170)),
}


@pytest.mark.parametrize("way", WAYS)
def test_pen_paper_light_and_place_make_no_difference(way):
    plain = np.stack([handwriting.like_mnist(typed(digit)) for digit in range(10)])
    images = np.stack([handwriting.like_mnist(WAYS[way](digit)) for digit in range(10)])
    assert np.abs(images - plain).mean() < 0.03
    # As LeCun made them: the ink fits 20 x 20, and its mass is in the middle.
    for image in images:
        rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) == 19
        assert np.abs(np.array(ndimage.center_of_mass(image)) - 14).max() < 0.6


def test_thin_strokes_are_made_wider_and_not_faint():
    for digit in range(10):
        plain = typed(digit, (450, 350), 250)
        thin = ndimage.maximum_filter(plain, (11, 11, 1))  # less than half as wide
        images = handwriting.like_mnist(thin), handwriting.like_mnist(plain)
        assert images[0].sum() > 0.8 * images[1].sum()


SQUARES = [(0, at, 300, at) for at in range(0, 300, 40)] + [
    (at, 0, at, 200) for at in (0, 150, 299)
]
REFUSED = {
    "a shadow on blank paper": (shaded(PAPER), "blank"),
    "grain": (grainy(PAPER, 12), "blank"),
    "squared paper": (crossed(typed(3), *SQUARES), "touches all four edges"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_picture_without_a_digit_is_refused(kind):
    picture, reason = REFUSED[kind]
    with pytest.raises(photos.Unreadable, match=reason):
        handwriting.like_mnist(picture)


def test_the_bar_of_a_5_is_a_part_of_it():
    five = typed(5, (400, 400), 200)
    cut = crossed(five, (0, 155, 400, 155), ink=255, width=8)
    assert np.abs(handwriting.like_mnist(cut) - handwriting.like_mnist(five)).mean() < 0.02


def test_a_photograph_is_made_smaller_and_a_transparent_drawing_is_on_paper(tmp_path):
    Image.fromarray(typed(7, (750, 1000), high=300, at=(270, 430))).save(tmp_path / "7.jpg")
    assert handwriting.read(tmp_path / "7.jpg").shape == (500, 375, 3)
    drawn = typed(7, (300, 300), 200, ink=(0, 0, 0, 255), paper=(0, 0, 0, 0))
    Image.fromarray(drawn).save(tmp_path / "7.png")
    for name in ("7.jpg", "7.png"):
        image = handwriting.like_mnist(handwriting.read(tmp_path / name))
        assert np.abs(image - handwriting.like_mnist(typed(7))).mean() < 0.02


def test_the_name_tells_the_label():
    for name in ("2.png", "2_second.jpg", "2 (1).png", "2"):
        assert handwriting.label_of(f"folder/{name}") == 2
    for name in ("IMG_7.png", "2024-07-01.jpg", "12.png", "3rd.png"):
        with pytest.raises(photos.Unreadable, match="--label"):
            handwriting.label_of(name)


def test_pictures_become_samples(tmp_path, trained, capsys):
    for name, picture in (("2.png", typed(2)), ("3_b.png", typed(3)), ("4.png", PAPER)):
        Image.fromarray(picture).save(tmp_path / name)
    (tmp_path / "5.png").write_bytes(b"no picture")
    pictures = [str(tmp_path / name) for name in ("2.png", "3_b.png", "4.png", "5.png")]
    output, figure = tmp_path / "mine.npz", tmp_path / "mine.png"
    arguments = ["--output", str(output), "--figure", str(figure)]
    assert my_digits.main([*pictures, *arguments]) == [output, figure]
    left_out = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1:3] for line in left_out] == [
        [pictures[2], handwriting.BLANK],
        [pictures[3], photos.NO_IMAGE],
    ]
    images, labels, indices = data.load_samples(output)
    np.testing.assert_array_equal(images[0], handwriting.like_mnist(typed(2)))
    assert (labels.tolist(), indices) == ([2, 3], None)
    assert Image.open(figure).size[0] > 400
    my_digits.main([*pictures[:2], "--label", "2", *arguments])
    table = capsys.readouterr().out.splitlines()[1:3]
    assert ["no model reads its label" in line for line in table] == [False, True]
    output.unlink()
    with pytest.raises(Failure, match=r"4\.png: blank.*and 1 more"):
        my_digits.main([*pictures[2:], *arguments])
    assert not output.exists()


def test_the_ten_of_ours_are_read_by_all_three_models_and_taken_by_an_attack(tmp_path, trained):
    samples, attacked = tmp_path / "x.npz", tmp_path / "a.npz"
    assert my_digits.main(["--output", str(samples)]) == [samples, files.IMG / "my_digits.png"]
    images, labels, _ = data.load_samples(samples)
    assert labels.tolist() == list(range(10))
    for model in trained.values():
        assert (mnist.classify(model, images) == labels).sum() >= 8
    arguments = ["--model", "softmax", "--samples", samples, "--output", attacked]
    mnist_fast_gradient.main([*map(str, arguments)])
    assert "indices" not in results.load(attacked)
    assert check_results.main([str(attacked)]) == []
