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
    return _strings(NAMES, lambda by_index: [by_index[str(index)] for index in range(CLASSES)])


@cache
def synsets():
    """The WordNet synsets ("n02510455") in the order of the indices: a tuple of 1,000 strings."""
    return _strings(SYNSETS, list)


def _strings(path, in_order):
    """The 1,000 strings of a JSON file; `in_order` brings what it holds into a list."""
    remedy = f"restore it with `git checkout {files.show(path)}`"
    files.check_input(path, remedy=remedy)
    try:
        strings = in_order(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise Failure(f"cannot read {files.show(path)}: {files.reason(error)}; {remedy}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Failure(
            f"{files.show(path)} is not the list of ImageNet classes: {remedy}"
        ) from error
    if len(strings) != CLASSES or not all(isinstance(string, str) for string in strings):
        raise Failure(f"{files.show(path)} does not hold {CLASSES:,} names: {remedy}")
    return tuple(strings)


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
