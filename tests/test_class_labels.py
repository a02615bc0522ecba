"""The ImageNet classes against what the literature calls them."""

import re

import pytest

from common.command import Failure
from common.run import class_labels

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
        assert class_labels.names()[index] == name
        assert class_labels.synsets()[index] == synset
        assert class_labels.index_of(name.upper().replace(" ", "_")) == index
        assert class_labels.index_of(synset) == class_labels.index_of(str(index)) == index


def test_there_are_a_thousand_of_each_in_the_order_of_the_synsets():
    assert len(class_labels.names()) == len(class_labels.synsets()) == class_labels.CLASSES == 1000
    assert all(name.strip() == name and name for name in class_labels.names())
    assert all(re.fullmatch(r"n\d{8}", synset) for synset in class_labels.synsets())
    assert list(class_labels.synsets()) == sorted(set(class_labels.synsets()))


def test_folders_called_by_a_class_are_recognised():
    names = {"388": 388, "007": 7, "n02510455": 388, "0": 0, "999": 999, "giant panda": 388}
    for name, index in (names | {"Giant_Panda": 388, "tiger cat": 282}).items():
        assert class_labels.of_folder(name) == index
    for name in ("1000", "-1", "panda", "", "n99999999", "²", "1" * 5000, "3.5"):
        assert class_labels.of_folder(name) is None
    with pytest.raises(Failure, match="134 and 517: give the index"):
        class_labels.of_folder("crane")


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


def test_folders_tell_the_class_of_what_lies_in_them_if_asked_to(tmp_path, capsys):
    assert class_labels.of_photographs(None, "x", NAMES) == [None] * 4
    assert class_labels.of_photographs("folders", tmp_path / "7", NAMES) == [388, 1, None, 7]
    assert (
        "3 of 4 photographs lie in a folder of a class; not panda/c.jpg" in capsys.readouterr().err
    )
    with pytest.raises(Failure, match=r"0 of 2 photographs .* not a\.jpg.*; give a text file"):
        class_labels.of_photographs("folders", tmp_path, ["a.jpg", "b/c.jpg"])


UTF_8 = [
    "a.jpg 388\nb.jpg 1\nd.JPEG 7\nelsewhere.jpg 9\n",
    "2024/388/a.jpg, giant panda\r\n\r\nb.jpg, GOLDFISH\r\nd.JPEG, cock\r\n",
    "ImageId,PredictionString\na,n02510455 85 1 499 272\nb,n01443537\nd,n01514668 1 2 3 4\n",
    "\ufefffile name\tclass\na.jpg\tgiant_panda\nb.jpg\t001\nd.JPEG\t7\n",
    # Tiny ImageNet's
    "a.jpg\tn02510455\t0\t32\t44\t62\nb.jpg\tn01443537\t5\t0\t57\t59\nd.JPEG\tn01514668\t1\t2\t3\t4\n",
    '"a.jpg","388"\n"b.jpg","goldfish, Carassius auratus"\n"d.JPEG","7",""\n',
    '"a.jpg" 388\n"b.jpg" 1\nd.JPEG 7\n',
    "a.jpg;388\nb.jpg;1\nd.JPEG;7\n",
    "path,width,height,label\na.jpg,1,2,388\nb.jpg,3,4,1\nd.JPEG,5,6,7\n",
    "/val/2024/388/a.jpg 388\n./n01443537\\b.jpg 1\nval/d.JPEG 7\nval/panda/a.jpg 2\n",
]


@pytest.mark.parametrize("content", [text.encode() for text in UTF_8] + [UTF_8[0].encode("utf-16")])
def test_a_list_tells_the_class_of_each_file(tmp_path, capsys, content):
    (tmp_path / "list.txt").write_bytes(content)
    assert class_labels.of_photographs(tmp_path / "list.txt", tmp_path, NAMES) == [388, 1, None, 7]
    assert "3 of 4 photographs are named there; not panda/c.jpg" in capsys.readouterr().err


def test_of_the_path_in_a_list_and_that_on_disk_one_is_the_end_of_the_other(tmp_path):
    (tmp_path / "list.txt").write_text("val/a.jpg 7\ntrain/a.jpg 8\nval/cafe\u0301.jpg 9\n")

    def of(folder, *names):
        return class_labels.of_photographs(tmp_path / "list.txt", folder, names)

    assert of("/data/val", "a.jpg", "caf\u00e9.jpg") == [7, 9]
    assert of("/data", "val/a.jpg", "train/a.jpg", "other/a.jpg") == [7, 8, None]
    assert of("/pictures", "a.jpg", "caf\u00e9.jpg") == [None, 9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg, 1\nb.jpg, gold fish\n", "line 2: 'gold fish' is not an ImageNet class"),
        ("a.jpg\n", "line 1: '' is not an ImageNet class"),
        ("a.jpg 1\na.jpg 2\n", "line 2: a.jpg has another class"),
        ("a.jpg,500,375,388\n", "line 1: which column is the class"),
        ("path,x,y,truth\na.jpg,5,3,388\n", "line 2: which column is the class"),
        ('"a.jpg, 1\n' + "b" * 200_000, "after line 0: field larger than field limit"),
        ("x.jpg 1\n", "0 of 4 photographs are named there; not 2024/388/a.jpg"),
        ("", "0 of 4 photographs are named there"),
        ("\xff\0\x01\n", "is not in UTF-8: save it so"),
        ("a\0.\0j\0p\0g\0 \x001\0\n\0", "is not in UTF-8: save it so"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "list.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(Failure, match=message):
        class_labels.of_photographs(tmp_path / "list.txt", tmp_path, NAMES)


def test_a_list_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(Failure, match="file name, class"):
            class_labels.of_photographs(path, tmp_path, NAMES)
