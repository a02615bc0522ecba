"""The ImageNet classes against what the literature calls them."""

import re

import pytest

from common.command import Failure
from common.run import class_labels

# Classes that papers and model documentation name by index or by synset.
KNOWN = {
    0: ("tench", "n01440764"),
    243: ("bull mastiff", "n02108422"),
    282: ("tiger cat", "n02123159"),
    388: ("giant panda", "n02510455"),
    954: ("banana", "n07753592"),
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
        class_labels.index_of(text)


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
        ("a.jpg\n", "line 1: '' is not an ImageNet class"),
        ("a.jpg 1\na.jpg 2\n", "line 2: a.jpg has another class"),
        ("x.jpg 1\n", "0 of 4 photographs are named there; not 2024/388/a.jpg"),
        ("", "0 of 4 photographs are named there"),
        ("\xff\0\x01\n", "give a text file in UTF-8"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "list.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(Failure, match=message):
        class_labels.of_photographs(tmp_path / "list.txt", tmp_path, NAMES)
