"""The 1,000 ImageNet classes: index, name and WordNet synset; and which class a photograph shows.

The lists lie in common/labels.json and common/synsets.json; where they come from is said in
common/images/README.md.
"""

import difflib
import json
import os
from functools import cache

from common import command, files
from common.command import Failure

NAMES = files.COMMON / "labels.json"
SYNSETS = files.COMMON / "synsets.json"
CLASSES = 1000

FOLDERS = "folders"
# What a list of labels may have above its first column.
HEADINGS = ("file", "filename", "image", "imageid", "name", "path")


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


def argument(text):
    """A command line argument as `of_photographs` takes it: "folders" or a path."""
    return text if text == FOLDERS else command.path(text)


def setting(source):
    """What results record of such an argument: of a file its SHA-256."""
    return source if source in (None, FOLDERS) else files.sha256(source)


def of_photographs(source, folder, names):
    """The classes of photographs: a list of indices, None for each that is not known.

    names: paths from `folder`, with "/" between their parts.  source: None, nothing is known;
    "folders", the folder in which a photograph lies is called by an index ("388") or a synset
    ("n02510455"); or a text file of lines "file name, class", such as comes with the flat folder
    of ImageNet's validation set.  Comma, tab or space may stand between the two; a class is an
    index, a synset or a name.  A file name counts with its folders or without, with its suffix
    or without.  Raises `Failure` for a list that cannot be understood or names no photograph.
    """
    if source is None:
        return [None] * len(names)
    if source == FOLDERS:
        root = os.path.realpath(folder)
        parents = (os.path.dirname(os.path.join(root, name)) for name in names)
        return [of_folder(os.path.basename(parent)) for parent in parents]
    listed = _read_list(source)
    classes = []
    for name in names:
        base = name.rpartition("/")[2]
        keys = (name, base, os.path.splitext(base)[0])
        classes.append(next((listed[key] for key in keys if key in listed), None))
    if names and not any(index is not None for index in classes):
        raise Failure(
            f"{files.show(source)} names none of the {len(names)} photographs: {names[0]}, "
            "for example, is not there"
        )
    return classes


def _read_list(path):
    """The classes by file name from a list: see `of_photographs`."""
    remedy = f"give a text file of lines `file name, class`, or `{FOLDERS}`"
    files.check_input(path, remedy=remedy)
    shown = files.show(path)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise Failure(f"cannot read {shown}: {files.reason(error)}; {remedy}") from error
    listed = {}
    for number, line in enumerate(lines, 1):
        separator = next((mark for mark in ",\t" if mark in line), None)
        # Between spaces the class is what comes last, for a file name may hold some.
        name, *rest = line.split(separator, 1) if separator else line.rsplit(None, 1) or [""]
        name, label = name.strip(), "".join(rest).strip()[:100]
        if not line or (number == 1 and name.lower().replace(" ", "") in HEADINGS):
            continue
        # Some lists have the place of the object after the class.
        first = label.partition(" ")[0]
        try:
            index = index_of(label if of_folder(first) is None else first)
        except Failure as failure:
            raise Failure(f"{shown}, line {number}: {failure}; {remedy}") from failure
        if listed.setdefault(name, index) != index:
            raise Failure(f"{shown}, line {number}: {name} has another class further up")
    return listed


def _plain(name):
    return name.casefold().replace("_", " ").strip()
