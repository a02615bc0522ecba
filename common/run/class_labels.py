"""The 1,000 ImageNet classes: index, name and WordNet synset; and which class a photograph shows.

The classes of a network of one's own have names alone: they go in as `own`, a tuple of strings.
The lists lie in common/labels.json and common/synsets.json; where they come from is said in
common/images/README.md.
"""

import codecs
import csv
import difflib
import io
import json
import os
import re
import sys
import unicodedata
from functools import cache

from common import command, files
from common.command import Failure

NAMES = files.COMMON / "labels.json"
SYNSETS = files.COMMON / "synsets.json"
CLASSES = 1000

FOLDERS = "folders"
REMEDY = (
    f"give a text file of lines `file name, class`, or `{FOLDERS}` if each folder is called by the "
    "index, synset or name of its class"
)
# What a list of labels may have above its columns.
NAME_TITLES = {"file", "filename", "image", "imageid", "name", "path"}
CLASS_TITLES = {"class", "label", "predictionstring", "synset", "wnid"}


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
    remedy = "give a text file in UTF-8 with the name of a class in each line"
    files.check_input(path, remedy=remedy)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read {files.show(path)}: {files.reason(error)}; {remedy}") from error
    return tuple(line.strip() for line in lines if line.strip())


def of_settings(config):
    """The names of the classes that results speak of: their own, or ImageNet's."""
    return config.get("names") or names()


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


@cache
def of_folder(name, own=None):
    """The index of the class that a folder is called by, or None; `Failure` where it is two."""
    return index_of(name, own) if _found(name, own) else None


def index_of(text, own=None, option=""):
    """The index of a class given by index, synset or name, upper or lower case.

    A text of digits is an index, also where a class has it for its name.  option: where the text
    was given, for the message.  Raises `Failure` when there is no such class, or two have the name.
    """
    found, called = _found(text, own), own or names()
    if len(found) == 1:
        return found[0]
    shown = f"{option} {text!r}".strip()
    if found:
        raise Failure(
            f"{shown} is the name of the classes {' and '.join(map(str, found))}: give the index"
        )
    wanted = "" if text.isdecimal() else _plain(text)
    plain = [_plain(name) for name in called]
    close = [name for name in plain if wanted and wanted in name]
    close = close or difflib.get_close_matches(wanted, plain)
    close = ", ".join(called[plain.index(name)] for name in close[:5])
    kind = "a class" if own else "an ImageNet class"
    name = "its name" if own else f"its synset, or its name in {files.show(NAMES)}"
    hint = f"; close names: {close}" if close else ""
    raise Failure(
        f"{shown} is not {kind}: give its index from 0 to {len(called) - 1}, or {name}{hint}"
    )


def argument(text):
    """A command line argument as `of_photographs` takes it: "folders" or a path."""
    return text if text == FOLDERS else command.path(text)


def setting(source):
    """What results record of such an argument: of a file its SHA-256."""
    return source if source in (None, FOLDERS) else files.sha256(source)


def of_photographs(source, folder, names, own=None):
    """The classes of photographs: a list of indices, None for each that is not known.

    names: paths from `folder`, with "/" between their parts.  source: None, nothing is known;
    "folders", the folder in which a photograph lies is called by the index, synset or name of its
    class; or a text file of lines "file name, class", such as comes with the flat folder of
    ImageNet's validation set: see `_read_list`.  A line on stderr says where only some are known.
    Raises `Failure` where none is, and for a list that cannot be understood.
    """
    if source is None:
        return [None] * len(names)
    if source == FOLDERS:
        root = os.path.realpath(folder)
        parents = [os.path.basename(os.path.dirname(os.path.join(root, name))) for name in names]
        classes = [of_folder(parent, own) for parent in parents]
        known = "lie in a folder of a class"
    else:
        classes, known = _of_list(_read_list(source, own), folder, names), "are named there"
    unknown = [name for name, index in zip(names, classes, strict=True) if index is None]
    if unknown:
        line = f"--labels {files.show(source)}: {len(names) - len(unknown)} of {len(names)} "
        line += f"photographs {known}; not {unknown[0]}, for example"
        if len(unknown) == len(names):
            raise Failure(f"{line}; {REMEDY}")
        print(f"warning: {command.one_line(line)}", file=sys.stderr)
    return classes


def _of_list(listed, folder, names):
    """The class of each photograph, or None: its path or the one listed has to end the other."""
    endings = {}  # of the paths in the list; None where two classes have the same
    for path, index in listed.items():
        for ending in _endings(path):
            endings[ending] = index if endings.get(ending, index) == index else None

    def class_of(name):
        whole = _endings(_key(os.path.join(os.path.abspath(folder), name)))
        return next((listed[end] for end in whole if end in listed), endings.get(_key(name)))

    return [class_of(name) for name in names]


def _endings(path):
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _key(path):
    """A path as it is compared: without suffix; accents in one piece, and no backslashes."""
    path = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return re.sub(r"\.[a-z][a-z0-9]{2,3}$", "", path.removeprefix("./").lstrip("/"), flags=re.I)


def _read_list(path, own):
    """The classes in a list of labels, by `_key` of the file's name.

    UTF-8, or UTF-16 as PowerShell writes it.  The first line decides what is between the columns:
    tab, comma, semicolon or spaces.  The class is in the column that the first line calls so, or
    in the second one; after it there may be the place of the object.
    """
    files.check_input(path, remedy=REMEDY)
    shown = files.show(path)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise Failure(f"cannot read {shown}: {files.reason(error)}; {REMEDY}") from error
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode(*("utf-16", "replace") if marked else ("utf-8-sig", "surrogateescape"))
    if "\0" in text:
        raise Failure(f"{shown} is not in UTF-8: save it so; {REMEDY}")

    separator = next((mark for mark in "\t,;" if mark in text.lstrip().partition("\n")[0]), None)
    rows = io.StringIO(text, newline="")
    if separator:
        rows = csv.reader(rows, delimiter=separator, skipinitialspace=True)
    else:  # a file name may hold spaces, too
        rows = (line.replace('"', "").rsplit(None, 1) for line in rows)
    listed, column, number = {}, None, 0
    try:
        for number, row in enumerate(rows, 1):
            cells = [cell.strip() for cell in row]
            titles = ["".join(filter(str.isalnum, cell.lower())) for cell in cells]
            if number == 1 and titles and titles[0] in NAME_TITLES:
                column = next((i for i, title in enumerate(titles) if title in CLASS_TITLES), None)
            elif any(cells):
                index = _class_of_row(cells, column, own)
                if listed.setdefault(_key(cells[0]), index) != index:
                    raise Failure(f"{cells[0]} has another class further up")
    except csv.Error as error:
        raise Failure(f"{shown}, after line {number}: {error}; {REMEDY}") from error
    except Failure as failure:
        raise Failure(f"{shown}, line {number}: {failure}; {REMEDY}") from failure
    return listed


def _class_of_row(cells, column, own):
    """The index of the class in a row; column: where the titles say it is, or None."""
    label, *more = cells[column or 1 :] or [""]
    numbers = all(cell.replace(".", "").isdigit() for cell in more if cell)
    if any(more) and column is None and (label.isdigit() or not numbers):
        raise Failure("which column is the class? Leave two, or call one `class` in the first line")
    first = label.partition(" ")[0]
    number = first.isdecimal() or first in synsets()
    return index_of(first if number else label[:100], own)


def _plain(name):
    """A name as it is compared: of several synonyms, with commas between, the first."""
    return name.partition(",")[0].casefold().replace("_", " ").strip()
