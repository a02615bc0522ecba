"""Photographs as they lie on people's disks, whole and broken, and what they are said to show."""

import io
import os
import re

import numpy as np
import pytest
from PIL import ExifTags, Image

from common import files
from common.command import Failure
from common.networks import own_model
from common.run import class_labels, photos

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


def palette():
    image = Image.new("P", (40, 40), 0)
    image.putpalette([*BLUE, *RED])
    return image


SEEN = {
    "16 bits": (Image.fromarray(np.full((40, 40), 0x8000, np.uint16)), {}, (0x80, 0x80, 0x80)),
    "transparent": (Image.new("RGBA", (40, 40), (*BLUE, 0)), {}, WHITE),
    "a transparent colour": (palette(), {"transparency": 0}, WHITE),
    "grey and transparent": (Image.new("LA", (40, 40), (0, 0)), {}, WHITE),
}


@pytest.mark.parametrize("kind", SEEN)
def test_depth_and_transparency(read, kind):
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


def test_a_rectangle_is_the_middle_of_the_photograph(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 50, 3), np.uint8)
    photos.save_png(tmp_path / "a.png", image)
    np.testing.assert_array_equal(photos.read(tmp_path / "a.png", (20, 30)), image[:, 10:40])
    np.testing.assert_array_equal(photos.read(tmp_path / "a.png", (10, 50)), image[5:15])
    assert photos.read(tmp_path / "a.png", (7, 9)).shape == (7, 9, 3)


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
    assert "\n" not in str(caught.value)


def test_the_size_limit_is_for_what_is_decoded(read, monkeypatch):
    large = gradient(1200, 900)
    monkeypatch.setattr(photos, "MAX_PIXELS", 1200 * 900 // 4)
    small = large.crop((150, 0, 1050, 900)).resize((SIDE, SIDE))
    assert np.abs(read(encoded("JPEG", large)).astype(int) - np.asarray(small)).mean() < 4
    for content in (encoded("JPEG", large, progressive=True), encoded("PNG", large)):
        with pytest.raises(photos.Unreadable, match="huge: 1200 x 900"):
            read(content)


def make_files(folder, paths):
    for path in paths.split():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def test_folders_are_walked_in_order_but_for_what_is_hidden_and_loops_end(tmp_path):
    inside, outside, deep = tmp_path / "photos", tmp_path / "elsewhere", f"z/{'d/' * 150}n.png"
    make_files(inside, f"b/2.png b/10.JPG a/deep/er/x.heic a.png b.tiff {deep}")
    make_files(inside, ".a.jpg .thumbnails/a.jpg README.md a.jpg.xmp")
    make_files(outside, "linked.png")
    links = {"a/b": "../b", "a/loop": inside, "c": outside, "itself": "itself"}
    for link, target in (links | {outside / "back": inside, outside / "again": outside}).items():
        (inside / link).symlink_to(target)
    expected = ["a/deep/er/x.heic", "a.png", "b/10.JPG", "b/2.png", "b.tiff", "c/linked.png", deep]
    assert list(photos.walk(inside, pytest.fail)) == expected


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


# What they show ----------------------------------------------------------------------------------

# Classes that papers and model documentation name by index or by synset.
KNOWN = {
    0: ("tench", "n01440764"),
    388: ("giant panda", "n02510455"),
    999: ("toilet tissue", "n15075141"),
}


def test_known_classes_have_their_names_and_synsets():
    for index, (name, synset) in KNOWN.items():
        assert class_labels.names()[index] == name
        assert class_labels.synsets()[index] == synset
        assert class_labels.index_of(name.upper().replace(" ", "_")) == index
        assert class_labels.index_of(synset) == class_labels.index_of(str(index)) == index


def test_there_are_a_thousand_of_each_in_the_order_of_the_synsets():
    assert len(class_labels.names()) == len(class_labels.synsets()) == class_labels.CLASSES == 1000
    assert all(name.strip() == name and name for name in class_labels.names())
    assert all(re.fullmatch(r"n\d{8}", synset) for synset in class_labels.synsets())
    assert list(class_labels.synsets()) == sorted(set(class_labels.synsets()))


FOLDERS = {"388": 388, "007": 7, "n02510455": 388, "0": 0, "Giant_Panda": 388, "tiger cat": 282}


def test_folders_tell_the_class_of_what_lies_in_them_if_asked_to(tmp_path, capsys):
    def classes(*folders):
        names = [f"x/{folder}/a.jpg" for folder in folders]
        return class_labels.of_photographs("folders", tmp_path / "7", names)

    assert class_labels.of_photographs(None, "x", ["388/a.jpg"]) == [None]
    assert classes(*FOLDERS) == list(FOLDERS.values())
    unknown = ("1000", "-1", "panda", "n99999999", "²", "1" * 5000, "3.5")
    assert classes("388", *unknown) == [388] + 7 * [None]
    error = capsys.readouterr().err
    assert "1 of 8 photographs lie in a folder of a class; not x/1000/a.jpg" in error
    assert class_labels.of_photographs("folders", tmp_path / "7", ["a.jpg"]) == [7]
    with pytest.raises(Failure, match="134 and 517: give the index"):
        classes("crane")
    with pytest.raises(Failure, match=r"0 of 1 photographs .* not x/y/a\.jpg.*; give a text file"):
        classes("y")


def test_a_target_is_read_in_one_way_for_digits_and_photographs():
    """A number is an index, whatever the classes are called; else a name, in any case."""
    for names, text, index in (
        (("2", "0", "1"), "0", 0),
        (("2", "0", "1"), "002", 2),
        (("boat", "Tree"), "TREE", 1),
        (tuple("0123456789"), "6", 6),
    ):
        network = own_model.Network("m", None, None, len(names), names=names)
        assert network.target(text) == index
        assert class_labels.index_of(text, names) == index
    for names, text, message in (
        (("10", "20"), "00010", "--target '00010' is not a class: give its index from 0 to 1"),
        (("10", "20"), "1" * 5000, "is not a class"),
        (("a", "A"), "a", "--target 'a' is the name of the classes 0 and 1: give the index"),
        (("boat", "tree"), "boot", "close names: boat"),
        (None, "giraf panda", "close names: giant panda"),
    ):
        network = own_model.Network("m", None, None, len(names or ()), names=names)
        with pytest.raises(Failure, match=message):
            network.target(text)


NAMES = ["2024/388/a.jpg", "n01443537/b.jpg", "panda/c.jpg", "d.JPEG"]
LISTS = [
    "2024/388/a.jpg, giant panda\r\n\r\nn01443537/b, GOLDFISH, Carassius\r\nd.JPEG, cock\r\n",
    "\ufeffImageId,PredictionString\n2024/388/a,n02510455 85 1 499 272\nn01443537/b,1\nd,7\n",
    # Tiny ImageNet's
    "2024/388/a.jpg\tn02510455\t0\t32\nn01443537/b.jpg\tn01443537\t5\t0\nd.JPEG\tn01514668\t1\t2\n",
]


@pytest.mark.parametrize("content", LISTS)
def test_a_list_tells_the_class_of_each_file(tmp_path, capsys, content):
    (tmp_path / "list.txt").write_text(content, encoding="utf-8")
    assert class_labels.of_photographs(tmp_path / "list.txt", tmp_path, NAMES) == [388, 1, None, 7]
    assert "3 of 4 photographs are named there; not panda/c.jpg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg, 1\nb.jpg, gold fish\n", "line 2: 'gold fish' is not an ImageNet class"),
        ("a.jpg 1\na.jpg 2\n", "line 2: a.jpg has another class"),
        ("x.jpg 1\n", "0 of 4 photographs are named there; not 2024/388/a.jpg"),
        ("\xff\0\x01\n", "give a text file in UTF-8"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "list.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(Failure, match=message):
        class_labels.of_photographs(tmp_path / "list.txt", tmp_path, NAMES)
