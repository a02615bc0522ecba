"""Photographs as they lie on people's disks, whole and broken."""

import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from common import files
from common.command import Failure
from common.imagenet import photos

SIDE = 32
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def gradient(width, height, mode="RGB"):
    """A picture that is brighter to the right (red) and to the bottom (green)."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 255 / width, y * 255 / height, 128 + 0 * x], axis=-1)
    return Image.fromarray(rgb.astype(np.uint8)).convert(mode)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {"quality": 95}),
        ("a.png", {}),
        ("a.bmp", {}),
        ("a.gif", {}),
        ("a.webp", {"lossless": True}),
        ("a.tif", {}),
        ("a.avif", {"quality": 95}),
        ("a.jp2", {}),
        ("no_suffix", {"format": "PNG"}),
        ("wrong_suffix.jpg", {"format": "PNG"}),
    ],
)
def test_every_format_is_read_whatever_the_name(tmp_path, name, options):
    form = Image.registered_extensions().get(os.path.splitext(name)[1])
    if "format" not in options and form not in photos.READABLE:
        pytest.skip(f"this Pillow has no {form}")
    gradient(SIDE, SIDE).save(tmp_path / name, **options)
    seen = photos.read(tmp_path / name, SIDE)
    assert seen.shape == (SIDE, SIDE, 3)
    assert seen.dtype == np.uint8
    assert np.abs(seen.astype(int) - np.asarray(gradient(SIDE, SIDE))).mean() < 12


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    image = gradient(50, 40, mode)
    image.save(tmp_path / "a", format="JPEG" if mode == "CMYK" else "PNG")
    assert photos.read(tmp_path / "a", SIDE).shape == (SIDE, SIDE, 3)


def test_sixteen_bit_grey_keeps_its_brightness(tmp_path):
    Image.fromarray(np.full((40, 40), 0x8000, np.uint16)).save(tmp_path / "a.png")
    assert set(photos.read(tmp_path / "a.png", SIDE).ravel()) == {0x80}


def test_transparency_is_laid_over_white(tmp_path):
    Image.new("RGBA", (40, 40), (*BLUE, 0)).save(tmp_path / "a.png")
    assert (photos.read(tmp_path / "a.png", SIDE) == WHITE).all()
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([*BLUE, *RED])
    palette.save(tmp_path / "b.gif", transparency=0)
    assert (photos.read(tmp_path / "b.gif", SIDE) == WHITE).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "transparent.png", "transparent.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_respected(tmp_path, name, orientation):
    """The upright picture has red above green; the stored one is turned the other way."""
    upright = Image.new("RGB", (SIDE, SIDE), GREEN)
    upright.paste(RED, (0, 0, SIDE, SIDE // 2))
    upright.paste(BLUE, (0, 0, SIDE // 4, SIDE // 4))
    undo = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    turn = undo.get(orientation, photos.UPRIGHT.get(orientation))
    stored = upright.copy() if turn is None else upright.transpose(turn)
    if name.startswith("transparent"):
        stored.putalpha(255)
    exif = Image.Exif()
    exif[photos.ORIENTATION_TAG] = orientation
    stored.save(tmp_path / name, exif=exif, lossless=True)
    np.testing.assert_array_equal(photos.read(tmp_path / name, SIDE), np.asarray(upright))


def test_broken_exif_does_not_spoil_a_photograph(tmp_path):
    gradient(50, 40).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert photos.read(tmp_path / "a.jpg", SIDE).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize(("width", "height"), [(3 * SIDE, SIDE), (SIDE, 3 * SIDE), (100, 37)])
def test_the_middle_square_is_kept(tmp_path, width, height):
    image = Image.new("RGB", (width, height), RED)
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    image.paste(BLUE, (left - 1, top - 1, left + short + 1, top + short + 1))
    image.save(tmp_path / "a.png")
    assert (photos.read(tmp_path / "a.png", SIDE) == BLUE).all()


def test_a_picture_of_the_right_size_goes_through_unchanged(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    photos.save(tmp_path / "a.png", noise)
    np.testing.assert_array_equal(photos.read(tmp_path / "a.png", SIDE), noise)


def test_a_long_strip_is_not_blown_up(tmp_path):
    Image.new("RGB", (60_000, 2), GREEN).save(tmp_path / "a.png")
    assert (photos.read(tmp_path / "a.png", SIDE) == GREEN).all()


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 9))


def encoded(form, side=64):
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(file, format=form)
    return file.getvalue()


def floating_point():
    file = io.BytesIO()
    Image.fromarray(np.ones((40, 40), np.float32)).save(file, format="TIFF")
    return file.getvalue()


def jpeg_header(width, height, *, progressive=False):
    """A small JPEG that claims another size."""
    file = io.BytesIO()
    gradient(64, 64).save(file, format="JPEG", progressive=progressive)
    content = file.getvalue()
    start = content.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
    return content[:start] + struct.pack(">HH", height, width) + content[start + 4 :]


HOSTILE = {
    "empty.jpg": (b"", "empty"),
    "text.png": (b"Dear diary", "not a JPEG"),
    "truncated.jpg": (encoded("JPEG")[:900], "truncated"),
    "truncated.png": (encoded("PNG")[:900], None),
    "truncated.gif": (encoded("GIF")[:900], None),
    "truncated.webp": (encoded("WEBP")[:900], None),
    "truncated.bmp": (encoded("BMP")[:900], None),
    "bomb.png": (png_header(10_000, 9_001), "huge"),
    "greater_bomb.png": (png_header(2**31 - 1, 2**31 - 1), "huge"),
    "nothing_inside.png": (png_header(64, 64), None),
    "other_format.png": (encoded("PPM"), "not a JPEG"),
    "phone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC.*convert"),
    "camera.NEF": (encoded("TIFF"), "raw file: convert"),
    "measured.tif": (floating_point(), "floating-point"),
    "bomb.jpg": (jpeg_header(65_535, 65_535, progressive=True), "huge"),
    "vector.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a JPEG"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_turned_away_in_one_line(tmp_path, name):
    content, reason = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(photos.Unreadable, match=reason) as caught:
        photos.read(tmp_path / name, SIDE)
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_size_limit_is_for_what_is_decoded(tmp_path, monkeypatch):
    gradient(1200, 900).save(tmp_path / "a.jpg")
    gradient(1200, 900).save(tmp_path / "whole.jpg", progressive=True)
    gradient(1200, 900).save(tmp_path / "a.png")
    monkeypatch.setattr(photos, "MAX_PIXELS", 1200 * 900 // 4)
    small = gradient(1200, 900).crop((150, 0, 1050, 900)).resize((SIDE, SIDE))
    seen = photos.read(tmp_path / "a.jpg", SIDE)
    assert np.abs(seen.astype(int) - np.asarray(small)).mean() < 4
    for name in ("whole.jpg", "a.png"):
        with pytest.raises(photos.Unreadable, match="huge: 1200 x 900"):
            photos.read(tmp_path / name, SIDE)


def test_what_is_not_a_file_is_turned_away(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "itself").symlink_to("itself")
    for name in ("pipe", "dangling", "itself"):
        with pytest.raises(photos.Unreadable):
            photos.read(tmp_path / name, SIDE)


def make_files(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def test_folders_are_walked_in_order_and_loops_end(tmp_path):
    inside, outside = tmp_path / "photos", tmp_path / "elsewhere"
    make_files(
        inside, "b/2.png", "b/10.png", "a/deep/er/x.png", "a.png", "b.png", "README.md", "z/n.txt"
    )
    outside.mkdir()
    (outside / "linked.png").touch()
    (outside / "back").symlink_to(inside)
    (outside / "again").symlink_to(outside)
    (inside / "a" / "loop").symlink_to(inside)
    (inside / "c").symlink_to(outside)
    (inside / "itself").symlink_to("itself")
    assert list(photos.walk(inside, pytest.fail)) == [
        "a/deep/er/x.png",
        "a.png",
        "b/10.png",
        "b/2.png",
        "b.png",
        "c/linked.png",
        "itself",
        "z/n.txt",
    ]


def test_droppings_beside_photographs_are_passed_over_silently(tmp_path):
    make_files(
        tmp_path,
        "a.jpg",
        "trip/b.jpg",
        ".hidden.jpg",
        "._a.jpg",
        ".thumbnails/a.jpg",
        "trip/@eaDir/b.jpg/SYNOPHOTO_THUMB_XL.jpg",
        "trip/#recycle/c.jpg",
        "@Recycle/d.jpg",
        "__MACOSX/._a.jpg",
        "$RECYCLE.BIN/$R1.jpg",
        "Thumbs.db",
        "desktop.ini",
        "Icon\r",
        "a.jpg.xmp",
        "IMG_1.AAE",
    )
    assert list(photos.walk(tmp_path, pytest.fail)) == ["a.jpg", "trip/b.jpg"]


def test_files_and_folders_are_found_together_each_file_once(tmp_path, monkeypatch):
    make_files(tmp_path, "a/1.jpg", "a/b/2.jpg", "c/1.jpg", "c/.3.jpg")
    monkeypatch.chdir(tmp_path)

    def find(*paths):
        folder, names = photos.find(paths, pytest.fail)
        return os.path.relpath(folder, tmp_path), names

    assert find("a") == ("a", ["1.jpg", "b/2.jpg"])
    assert find("a/b/2.jpg") == ("a/b", ["2.jpg"])
    assert find("a/1.jpg", "c/1.jpg") == (".", ["a/1.jpg", "c/1.jpg"])
    assert find("c", tmp_path / "a") == (".", ["c/1.jpg", "a/1.jpg", "a/b/2.jpg"])
    assert find("a/b/2.jpg", "a") == ("a", ["b/2.jpg", "1.jpg"])
    # What is named counts, though it would be passed over in a folder.
    assert find("c/.3.jpg") == ("c", [".3.jpg"])
    with pytest.raises(Failure, match="not found: name a photograph"):
        find("a", "absent.jpg")


def test_a_very_deep_folder_is_walked(tmp_path):
    deep = tmp_path
    for _ in range(150):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "x.png").touch()
    assert len(list(photos.walk(tmp_path, pytest.fail))) == 1


def test_a_batch_keeps_its_order_and_says_what_it_leaves_out(tmp_path):
    names = [f"{i:02d}.png" for i in range(20)]
    for i, name in enumerate(names):
        Image.new("RGB", (40, 40), (i, 0, 0)).save(tmp_path / name)
    (tmp_path / "03.png").write_bytes(b"")
    (tmp_path / "17.png").write_bytes(b"no image")
    odd = os.fsdecode(b'\xff\n, "odd".png')
    Image.new("RGB", (40, 40), (99, 0, 0)).save(os.path.join(tmp_path, odd), format="PNG")
    paths, images, skipped = photos.read_batch(tmp_path, [*names, odd], SIDE)
    assert paths == [name for name in names if name not in ("03.png", "17.png")] + [odd]
    assert list(images[:, 0, 0, 0]) == [i for i in range(20) if i not in (3, 17)] + [99]
    assert skipped[0] == ("03.png", "empty file")
    (path, reason), *others = skipped[1:]
    assert (path, others) == ("17.png", [])
    assert reason.startswith("not a JPEG")
    paths, images, skipped = photos.read_batch(tmp_path, ["03.png"], SIDE)
    assert (paths, images.shape, len(skipped)) == ([], (0, SIDE, SIDE, 3), 1)


def test_no_more_than_a_few_photographs_are_decoded_at_a_time(monkeypatch):
    at_work, most = [], []

    def read(path, side):
        at_work.append(path)
        most.append(len(at_work))
        time.sleep(0.01)
        at_work.remove(path)
        return np.zeros((side, side, 3), np.uint8)

    monkeypatch.setattr(photos, "read", read)
    for cores in (2, 500):
        monkeypatch.setattr(photos, "cores", lambda cores=cores: cores)
        most.clear()
        photos.read_batch("", [f"{i}.jpg" for i in range(30)], SIDE)
        assert max(most) == min(cores, photos.DECODERS)


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
