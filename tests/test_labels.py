"""The ImageNet classes against what the literature calls them."""

import re

import pytest

from common.command import Failure
from common.imagenet import labels

# Classes that papers and model documentation name by index or by synset.
KNOWN = {
    0: ("tench", "n01440764"),
    1: ("goldfish", "n01443537"),
    2: ("great white shark", "n01484850"),
    207: ("golden retriever", "n02099601"),
    243: ("bull mastiff", "n02108422"),
    281: ("tabby", "n02123045"),
    282: ("tiger cat", "n02123159"),
    285: ("Egyptian cat", "n02124075"),
    340: ("zebra", "n02391049"),
    368: ("gibbon", "n02483362"),
    386: ("African elephant", "n02504458"),
    388: ("giant panda", "n02510455"),
    651: ("microwave", "n03761084"),
    817: ("sports car", "n04285008"),
    859: ("toaster", "n04442312"),
    954: ("banana", "n07753592"),
    999: ("toilet tissue", "n15075141"),
}


def test_known_classes_have_their_names_and_synsets():
    for index, (name, synset) in KNOWN.items():
        assert labels.names()[index] == name
        assert labels.synsets()[index] == synset
        assert labels.index_of(name.upper().replace(" ", "_")) == index
        assert labels.index_of(synset) == labels.index_of(str(index)) == index


def test_there_are_a_thousand_of_each():
    assert len(labels.names()) == len(labels.synsets()) == labels.CLASSES == 1000
    assert all(name.strip() == name and name for name in labels.names())
    assert all(re.fullmatch(r"n\d{8}", synset) for synset in labels.synsets())


def test_indices_follow_the_order_of_the_synsets():
    assert list(labels.synsets()) == sorted(set(labels.synsets()))


@pytest.mark.parametrize(
    ("name", "index"),
    [("388", 388), ("007", 7), ("n02510455", 388), ("0", 0), ("999", 999)],
)
def test_folders_called_by_index_or_synset_are_recognised(name, index):
    assert labels.of_folder(name) == index


@pytest.mark.parametrize("name", ["1000", "-1", "panda", "", "n99999999", "²", "1" * 5000, "3.5"])
def test_other_folders_tell_nothing(name):
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
