"""Photographs as they lie on people's disks, whole and broken."""

import io
import ntpath
import os

import numpy as np
import pytest
from PIL import ExifTags, Image

from common import files
from common.command import Failure
from common.run import photos

SIDE = 32
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def gradient(width, height, mode="RGB"):
    """A picture that is brighter to the right (red) and to the bottom (green)."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 255 / width, y * 255 / height, 128 + 0 * x], axis=-1)
    return Image.fromarray(rgb.astype(np.uint8)).convert(mode)


def encoded(form, image=None, **options):
    """The bytes of an image file; without an image, of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    (image or Image.fromarray(noise)).save(file, format=form, **options)
    return file.getvalue()


@pytest.fixture
def read(tmp_path):
    """A function: the square that is read from a file of these bytes."""

    def read(content, name="a"):
        (tmp_path / name).write_bytes(content)
        return photos.read(tmp_path / name, SIDE)

    return read


@pytest.mark.parametrize("name", [*photos.READABLE, "no suffix", "wrong.jpg"])
def test_every_format_is_read_whatever_the_name(read, name):
    form = name if name in photos.READABLE else "PNG"
    options = {"quality": 95} if form in ("WEBP", "JPEG", "AVIF", "HEIF") else {}
    seen = read(encoded(form, gradient(SIDE, SIDE), **options), name)
    assert seen.dtype == np.uint8
    assert np.abs(seen.astype(int) - np.asarray(gradient(SIDE, SIDE))).mean() < 12


def framed(width, height):
    """A picture whose middle square is blue, and the rest red."""
    image, short = Image.new("RGB", (width, height), RED), min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    image.paste(BLUE, (left - 1, top - 1, left + short + 1, top + short + 1))
    return image


def palette():
    image = Image.new("P", (40, 40), 0)
    image.putpalette([*BLUE, *RED])
    return image


SEEN = {
    "16 bits": (Image.fromarray(np.full((40, 40), 0x8000, np.uint16)), {}, (0x80, 0x80, 0x80)),
    "transparent": (Image.new("RGBA", (40, 40), (*BLUE, 0)), {}, WHITE),
    "a transparent colour": (palette(), {"transparency": 0}, WHITE),
    "grey": (Image.new("L", (40, 40), 9), {}, (9, 9, 9)),
    "grey and transparent": (Image.new("LA", (40, 40), (0, 0)), {}, WHITE),
    "black or white": (Image.new("1", (40, 40), 1), {}, WHITE),
    "wide": (framed(3 * SIDE, SIDE), {}, BLUE),
    "high": (framed(SIDE, 3 * SIDE), {}, BLUE),
    "a long strip": (framed(60_000, 2), {}, BLUE),
}


@pytest.mark.parametrize("kind", SEEN)
def test_depth_transparency_and_shape(read, kind):
    image, options, colour = SEEN[kind]
    assert (read(encoded("PNG", image, **options)) == colour).all()


# How the picture lies in the file under each orientation, in the order of EXIF's numbers.
STORED = (
    lambda x: x,
    lambda x: x[:, ::-1],
    lambda x: x[::-1, ::-1],
    lambda x: x[::-1],
    lambda x: x.transpose(1, 0, 2),
    lambda x: np.rot90(x),
    lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
    lambda x: np.rot90(x, -1),
)


@pytest.mark.parametrize(("form", "orientations"), [("PNG", range(1, 9)), ("TIFF", [6])])
def test_exif_orientation_is_respected(read, form, orientations):
    upright = np.asarray(gradient(SIDE, SIDE))
    for orientation in orientations:
        stored = Image.fromarray(np.ascontiguousarray(STORED[orientation - 1](upright)))
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        np.testing.assert_array_equal(read(encoded(form, stored, exif=exif)), upright)


def test_neither_broken_exif_nor_the_colours_of_print_spoil_a_photograph(read):
    assert read(encoded("JPEG", gradient(50, 40), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")).any()
    assert read(encoded("JPEG", gradient(50, 40, "CMYK"))).shape == (SIDE, SIDE, 3)


def test_a_picture_of_the_right_size_goes_through_unchanged(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    photos.save_png(tmp_path / "a.png", noise)
    np.testing.assert_array_equal(photos.read(tmp_path / "a.png", SIDE), noise)


HOSTILE = {
    "empty.jpg": (b"", "not a JPEG"),
    "truncated.jpg": (encoded("JPEG")[:900], "truncated"),
    "other_format.png": (encoded("PPM"), "not a JPEG"),
    "measured.tif": (encoded("TIFF", gradient(40, 40, "F")), "neither 8 nor 16 bits"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_turned_away_in_one_line(read, name):
    content, reason = HOSTILE[name]
    with pytest.raises(photos.Unreadable, match=reason) as caught:
        read(content, name)
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_size_limit_is_for_what_is_decoded(read, monkeypatch):
    large = gradient(1200, 900)
    monkeypatch.setattr(photos, "MAX_PIXELS", 1200 * 900 // 4)
    small = large.crop((150, 0, 1050, 900)).resize((SIDE, SIDE))
    assert np.abs(read(encoded("JPEG", large)).astype(int) - np.asarray(small)).mean() < 4
    for content in (encoded("JPEG", large, progressive=True), encoded("PNG", large)):
        with pytest.raises(photos.Unreadable, match="huge: 1200 x 900"):
            read(content)


def test_what_is_not_a_file_is_turned_away(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nothing"):
        with pytest.raises(photos.Unreadable, match="not a file"):
            photos.read(tmp_path / name, SIDE)


def make_files(folder, paths):
    for path in paths.split():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def test_folders_are_walked_in_order_and_loops_end(tmp_path):
    inside, outside, deep = tmp_path / "photos", tmp_path / "elsewhere", f"z/{'d/' * 150}n.png"
    make_files(inside, f"b/2.png b/10.png a/deep/er/x.png a.png b.png README.md {deep}")
    make_files(outside, "linked.png")
    links = {"a/b": "../b", "a/loop": inside, "c": outside, "itself": "itself"}
    for link, target in (links | {outside / "back": inside, outside / "again": outside}).items():
        (inside / link).symlink_to(target)
    expected = ["a/deep/er/x.png", "a.png", "b/10.png", "b/2.png", "b.png", "c/linked.png", deep]
    assert list(photos.walk(inside, pytest.fail)) == expected


def test_of_a_folder_photographs_are_tried_that_are_not_hidden(tmp_path):
    hidden = ".a.jpg .thumbnails/a.jpg notes.txt a.jpg.xmp"
    make_files(tmp_path, f"a.JPG trip/b.tiff trip/c.heic {hidden}")
    assert list(photos.walk(tmp_path, pytest.fail)) == ["a.JPG", "trip/b.tiff", "trip/c.heic"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(Failure, match=r"no image in .*empty: no file there ends in \.jpg"):
        photos.find([tmp_path / "empty"], pytest.fail)


def test_files_and_folders_are_found_together_each_file_once(tmp_path, monkeypatch):
    make_files(tmp_path, "a/1.jpg a/b/2.jpg c/1.jpg c/.3.jpg")
    (tmp_path / "link").symlink_to("a/b")
    monkeypatch.chdir(tmp_path)

    def find(*paths):
        folder, names = photos.find(paths, pytest.fail)
        return os.path.relpath(folder, tmp_path), names

    assert find("a") == ("a", ["1.jpg", "b/2.jpg"])
    assert find("a/b/2.jpg") == ("a/b", ["2.jpg"])
    assert find("a/b/2.jpg", "a") == ("a", ["b/2.jpg", "1.jpg"])
    # What is named counts, though it would be passed over in a folder.
    assert find("c/.3.jpg", "link") == (".", ["c/.3.jpg", "link/2.jpg"])
    with pytest.raises(Failure, match="not found: name a photograph"):
        find("a", "absent.jpg")
    drives = ntpath.commonpath
    monkeypatch.setattr(os.path, "commonpath", lambda paths: drives(["C:\\a", "D:\\b"]))
    with pytest.raises(Failure, match="are on different drives"):
        find("a", "c")


def test_a_batch_keeps_its_order_and_says_what_it_leaves_out(tmp_path):
    names = [f"{i:02d}.png" for i in range(9)] + [os.fsdecode(b'\xff\n, "odd".png')]
    for i, name in enumerate(names):
        photos.save_png(tmp_path / name, np.full((40, 40, 3), i, np.uint8))
    (tmp_path / "03.png").write_bytes(b"")
    (tmp_path / "07.png").write_bytes(b"no image")
    found, images, skipped, _ = photos.read_batch(tmp_path, SIDE, ([(n,) for n in names], 0))
    assert found == [(name,) for name in names if name not in ("03.png", "07.png")]
    assert list(images[:, 0, 0, 0]) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert [path for path, _ in skipped] == ["03.png", "07.png"]
    assert {reason for _, reason in skipped} == {photos.NO_IMAGE}
    found, images, skipped, _ = photos.read_batch(tmp_path, SIDE, ([("03.png",)], 0))
    assert (found, images.shape, len(skipped)) == ([], (0, SIDE, SIDE, 3), 1)


def test_each_of_our_photographs_has_its_licence_and_a_modest_size():
    folder = files.COMMON / "images"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    names = list(photos.walk(folder, pytest.fail))
    assert len(names) == 9
    for name in names:
        (row,) = (line for line in readme.splitlines() if line.startswith(f"| `{name}` |"))
        assert "CC" in row or "public domain" in row
        assert os.path.getsize(folder / name) < 300_000
        photos.read(folder / name, 224)
