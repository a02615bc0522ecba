"""The 1,000 ImageNet classes: index, name and WordNet synset.

The lists lie in common/labels.json and common/synsets.json; where they come from is said in
common/images/README.md.
"""

import difflib
import json
from functools import cache

from common import files
from common.command import Failure

NAMES = files.COMMON / "labels.json"
SYNSETS = files.COMMON / "synsets.json"
CLASSES = 1000


@cache
def names():
    """The names in the order of the indices: a tuple of 1,000 strings."""
    by_index = json.loads(NAMES.read_text(encoding="utf-8"))
    return tuple(by_index[str(index)] for index in range(CLASSES))


@cache
def synsets():
    """The WordNet synsets ("n02510455") in the order of the indices: a tuple of 1,000 strings."""
    return tuple(json.loads(SYNSETS.read_text(encoding="utf-8")))


def of_folder(name):
    """The index that a folder's name stands for, as "388" or "n02510455", or None."""
    if name.isascii() and name.isdigit() and int(name[:9]) < CLASSES and len(name) < 9:
        return int(name)
    return synsets().index(name) if name in synsets() else None


def index_of(text):
    """The index of a class given by index, synset or name, upper or lower case.

    Raises `Failure` when there is no such class, or two have the name.
    """
    index = of_folder(text)
    if index is not None:
        return index
    wanted = _plain(text)
    plain = [_plain(name) for name in names()]
    found = [index for index, name in enumerate(plain) if name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        numbers = " and ".join(str(index) for index in found)
        raise Failure(f"{text!r} is the name of the ImageNet classes {numbers}: give the index")
    close = [name for name in plain if wanted and wanted in name]
    close = close or difflib.get_close_matches(wanted, plain)
    hint = f"; close names: {', '.join(names()[plain.index(name)] for name in close[:5])}"
    raise Failure(
        f"{text!r} is not an ImageNet class: give an index from 0 to 999, a synset or a name "
        f"from {files.show(NAMES)}{hint if close else ''}"
    )


def _plain(name):
    return name.casefold().replace("_", " ").strip()
