"""The 1,000 ImageNet classes: index, name and WordNet synset; and which class a photograph shows.

The classes of a network of one's own have names alone: they go in as `own`, a tuple of strings.
common/images/README.md says where the lists come from.
"""

import difflib
import json
import os
import sys
from functools import cache

from common import command, files
from common.command import Failure

NAMES = files.COMMON / "labels.json"
SYNSETS = files.COMMON / "synsets.json"
CLASSES = 1000

FOLDERS = "folders"
REMEDY = (
    f"give a text file in UTF-8 of lines `file name, class`, or `{FOLDERS}` if each folder is "
    "called by the index, synset or name of its class"
)
# What a list of labels may have above its column of classes.
TITLES = {"class", "label", "predictionstring", "synset", "wnid"}


@cache
def names():
    """The names in the order of the indices: a tuple of 1,000 strings."""
    by_index = json.loads(NAMES.read_text(encoding="utf-8"))
    return tuple(by_index[str(index)] for index in range(CLASSES))


@cache
def synsets():
    """The WordNet synsets ("n02510455") in the order of the indices: a tuple of 1,000 strings."""
    return tuple(json.loads(SYNSETS.read_text(encoding="utf-8")))


def read_names(path):
    """The names of one's own classes, from a text file with one a line: a tuple of strings."""
    lines = _lines(path, "give a text file in UTF-8 with the name of a class in each line")
    return tuple(line for line in lines if line)


def _lines(path, remedy):
    """The lines of a text file in UTF-8, without blanks at their ends."""
    files.check_input(path, remedy=remedy)
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read {files.show(path)}: {files.reason(error)}; {remedy}") from error


def of_settings(config):
    """The names of the classes that results speak of: their own, or ImageNet's."""
    return config.get("names") or names()


def _plain(name):
    """A name as it is compared: of several synonyms, with commas between, the first."""
    return name.partition(",")[0].casefold().replace("_", " ").strip()


def _found(text, own):
    """The indices of the classes that a text stands for: one, none, or all of the same name."""
    called = own or names()
    if text.isdecimal():  # perhaps of more digits than `int` reads
        index = int(text.lstrip("0")[:9] or 0)
        return [index] if index < len(called) else []
    if not own and text in synsets():
        return [synsets().index(text)]
    wanted = _plain(text)
    return [index for index, name in enumerate(called) if _plain(name) == wanted]


def index_of(text, own=None, option=""):
    """The index of a class given by index, synset or name, upper or lower case.

    A text of digits is an index, whatever the names.  option: where the text was given, for the
    message.  Raises `Failure` when there is no such class, or two have the name.
    """
    found, called = _found(text, own), own or names()
    if len(found) == 1:
        return found[0]
    shown = f"{option} {text!r}".strip()
    if found:
        classes = " and ".join(map(str, found))
        raise Failure(f"{shown} is the name of the classes {classes}: give the index")
    wanted, plain = _plain(text), [_plain(name) for name in called]
    close = [] if text.isdecimal() else [name for name in plain if wanted and wanted in name]
    close = close or difflib.get_close_matches(wanted, plain)
    kind, way = ("a class", "its name") if own else ("an ImageNet class", "its synset or name")
    if close:
        way += "; close names: " + ", ".join(called[plain.index(name)] for name in close[:5])
    raise Failure(f"{shown} is not {kind}: give its index from 0 to {len(called) - 1}, or {way}")


def argument(text):
    """A command line argument as `of_photographs` takes it: "folders" or a path."""
    return text if text == FOLDERS else command.path(text)


def setting(source):
    """What results record of such an argument: of a file its SHA-256."""
    return source if source in (None, FOLDERS) else files.sha256(source)


def of_photographs(source, folder, names, own=None):
    """The classes of photographs: a list of indices, None for each that is not known.

    names: paths from `folder`, with "/" between their parts.  source: None; "folders", where those
    are called by the index, synset or name of a class; or a text file, as `_read_list` reads it.  A
    line on stderr says where only some are known.  Raises `Failure` where none is.
    """
    if source is None:
        return [None] * len(names)
    if source == FOLDERS:
        root = os.path.realpath(folder)
        parents = [os.path.basename(os.path.dirname(os.path.join(root, name))) for name in names]
        class_of = {p: index_of(p, own) if _found(p, own) else None for p in set(parents)}
        classes, known = [class_of[parent] for parent in parents], "lie in a folder of a class"
    else:
        listed, known = _read_list(source, own), "are named there"
        classes = [listed.get(name, listed.get(os.path.splitext(name)[0])) for name in names]
    unknown = [name for name, index in zip(names, classes, strict=True) if index is None]
    if unknown:
        line = f"--labels {files.show(source)}: {len(names) - len(unknown)} of {len(names)} "
        line += f"photographs {known}; not {unknown[0]}, for example"
        if len(unknown) == len(names):
            raise Failure(f"{line}; {REMEDY}")
        print(f"warning: {command.one_line(line)}", file=sys.stderr)
    return classes


def _read_list(path, own):
    """The classes in a list of labels: a dict from the path of a photograph, as the list has it.

    Its lines are "path, class" or "path class", from the folder of the photographs, with or without
    suffix.  After an index or a synset there may be other words, as in ImageNet's own list.
    """
    listed, lines = {}, _lines(path, REMEDY)
    comma = "," if lines and "," in lines[0] else None
    for number, line in enumerate(lines, 1):
        name, label = (*map(str.strip, line.split(comma, 1)), "", "")[:2]
        if not line or (number == 1 and label.lower() in TITLES):
            continue
        first = (label.split() or [""])[0]
        try:
            index = index_of(first if first.isdecimal() or first in synsets() else label, own)
            if listed.setdefault(name, index) != index:
                raise Failure(f"{name} has another class further up")
        except Failure as failure:
            raise Failure(f"{files.show(path)}, line {number}: {failure}; {REMEDY}") from failure
    return listed
