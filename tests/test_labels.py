"""The ImageNet classes against what the literature calls them."""

import re

import pytest

from common.command import Failure
from common.imagenet import labels

# Classes that papers and model documentation name by index or by synset.
KNOWN = {
    0: ("tench", "n01440764"),
    207: ("golden retriever", "n02099601"),
    243: ("bull mastiff", "n02108422"),
    282: ("tiger cat", "n02123159"),
    285: ("Egyptian cat", "n02124075"),
    388: ("giant panda", "n02510455"),
    651: ("microwave", "n03761084"),
    954: ("banana", "n07753592"),
    999: ("toilet tissue", "n15075141"),
}


def test_known_classes_have_their_names_and_synsets():
    for index, (name, synset) in KNOWN.items():
        assert labels.names()[index] == name
        assert labels.synsets()[index] == synset
        assert labels.index_of(name.upper().replace(" ", "_")) == index
        assert labels.index_of(synset) == labels.index_of(str(index)) == index


def test_there_are_a_thousand_of_each_in_the_order_of_the_synsets():
    assert len(labels.names()) == len(labels.synsets()) == labels.CLASSES == 1000
    assert all(name.strip() == name and name for name in labels.names())
    assert all(re.fullmatch(r"n\d{8}", synset) for synset in labels.synsets())
    assert list(labels.synsets()) == sorted(set(labels.synsets()))


def test_folders_called_by_index_or_synset_are_recognised():
    for name, index in {"388": 388, "007": 7, "n02510455": 388, "0": 0, "999": 999}.items():
        assert labels.of_folder(name) == index
    for name in ("1000", "-1", "panda", "", "n99999999", "²", "1" * 5000, "3.5"):
        assert labels.of_folder(name) is None


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("panda", "giant panda"),
        ("giraf panda", "giant panda"),
        ("1000", "0 to 999"),
        ("crane", "134 and 517"),
        ("", "index"),
    ],
)
def test_what_is_no_single_class_is_refused_with_a_way_out(text, hint):
    with pytest.raises(Failure, match=hint):
        labels.index_of(text)


NAMES = ["2024/388/a.jpg", "n01443537/b.jpg", "panda/c.jpg", "d.JPEG"]


def test_folders_tell_the_class_of_what_lies_in_them_if_asked_to(tmp_path):
    assert labels.of_photographs(None, "x", NAMES) == [None] * 4
    assert labels.of_photographs("folders", tmp_path / "7", NAMES) == [388, 1, None, 7]


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg 388\nb.jpg 1\nd.JPEG 7\nelsewhere.jpg 9\n",
        "2024/388/a.jpg, giant panda\r\n\r\nb.jpg, GOLDFISH\r\nd.JPEG, cock\r\n",
        "ImageId,PredictionString\na,n02510455 85 1 499 272\nb,n01443537\nd,n01514668 1 2 3 4\n",
        "\ufefffile name\tclass\na.jpg\tgiant_panda\nb.jpg\t001\nd.JPEG\t7\n",
    ],
)
def test_a_list_tells_the_class_of_each_file(tmp_path, text):
    (tmp_path / "list.txt").write_text(text, encoding="utf-8", newline="")
    assert labels.of_photographs(tmp_path / "list.txt", tmp_path, NAMES) == [388, 1, None, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg, 1\nb.jpg, gold fish\n", "line 2: 'gold fish' is not an ImageNet class"),
        ("a.jpg\n", "line 1: '' is not an ImageNet class"),
        ("a.jpg 1\na.jpg 2\n", "line 2: a.jpg has another class"),
        ("x.jpg 1\n", "names none of the 4 photographs"),
        ("", "names none of the 4 photographs"),
        ("\xff\0\x01\n", "line 1"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "list.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(Failure, match=message):
        labels.of_photographs(tmp_path / "list.txt", tmp_path, NAMES)


def test_a_list_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(Failure, match="file name, class"):
            labels.of_photographs(path, tmp_path, NAMES)
