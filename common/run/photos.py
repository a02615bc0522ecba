"""Photographs on disk: found, read, and cut to the network's square.

A photograph becomes a square of the network's side (224 pixels) in this way: it is turned
upright as its EXIF orientation says, transparency is laid over white, grey becomes RGB, the
shorter side is scaled to the square's side (bicubic, with antialiasing), and the middle is cut
out; of a network that takes no squares, a rectangle of its shape in the same way.  A large JPEG is
decoded at a half, quarter or eighth of its size when that leaves at least
twice the side.  Of an animation or a file of several pages the first picture counts.  Colour
profiles are not applied.

A picture that has the square's size already goes through unchanged, so what the attack saves as
PNG is read back pixel for pixel.
"""

import os
import stat
import threading
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from common import files
from common.command import Failure

# How Pillow and people call a format.  Older versions of Pillow lack some of them.
FORMATS = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "BMP": "BMP",
    "GIF": "GIF",
    "WEBP": "WebP",
    "AVIF": "AVIF",
    "TIFF": "TIFF",
    "JPEG2000": "JPEG 2000",
}
Image.init()
READABLE = tuple(name for name in FORMATS if name in Image.OPEN)

# Beyond this, what is to be decoded counts as a decompression bomb: a quarter of a gigabyte as RGB.
MAX_PIXELS = 90_000_000
# Pillow's own limit would refuse a JPEG of which only an eighth is decoded; `decode` looks itself.
Image.MAX_IMAGE_PIXELS = None
# A PNG with a megabyte of text or of colour profile is no attack: all its text may have 64.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
# What Pillow warns of (broken EXIF, say) is no news: `decode` knows the file and sees it itself.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Of several threads that decode, one at a time has a photograph above this size.
LARGE_PIXELS = 12_000_000
_one_large = threading.Lock()

# Of a camera's raw file, which often passes for a TIFF, Pillow would show the thumbnail.
RAW = (".3fr", ".arw", ".cr2", ".dng", ".erf", ".iiq", ".kdc", ".nef", ".nrw", ".pef", ".rwl")
# The first kind of an ISO media file: HEIC, from iPhones, is one of these.
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# What lies beside photographs and is none, in lower case; so does all that begins with a dot.
DROPPINGS = frozenset(
    {
        "readme.md",  # the text that goes with a folder of photographs
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),  # Windows
        *("$recycle.bin", "recycler", "system volume information"),
        *("icon\r", "__macosx", "network trash folder", "temporary items"),  # macOS
        "lost+found",  # Linux
        *("@eadir", "@tmp", "#recycle", "#snapshot"),  # Synology
        *("@recycle", "@recently-snapshot", "@__thumb"),  # QNAP
        *("picasa.ini", "zbthumbnail.info", "digikam4.db", "thumbnails-digikam.db"),
    }
)
# Of photo managers: edits and catalogues that lie beside the photographs.
SIDECARS = (".xmp", ".aae", ".thm", ".pp3", ".dop", ".lrcat", ".lrdata")


class Unreadable(Exception):
    """A file that is no photograph we can read; the message says why, in a few words."""


def find(paths, report):
    """Return (folder, names): where the photographs lie, and which files are to be tried.

    paths: one or more files and folders.  A folder stands for all the files below it, in the
    order of `walk`; a file that is named counts, whatever its name.  `folder` is the deepest one
    that holds all of them: the folder itself where one is given.  `names` lead from there, with
    "/" between their parts, each once.  `report(name, reason)` is called for folders that cannot
    be opened.  Raises `Failure` for a path that leads nowhere.
    """
    paths = [os.path.abspath(path) for path in paths]
    for path in paths:
        if not os.path.exists(path):
            raise Failure(f"{files.show(path)} not found: name a photograph or a folder of them")
    folders = [path if os.path.isdir(path) else os.path.dirname(path) for path in paths]
    try:
        folder = os.path.commonpath(folders)
    except ValueError as error:  # of Windows
        raise Failure(f"{' and '.join(folders)} are on different drives: name one") from error
    starts = [path.removeprefix(folder).replace(os.sep, "/").lstrip("/") for path in paths]
    names = dict.fromkeys(name for start in starts for name in walk(folder, report, start))
    return folder, list(names)


def walk(folder, report, start=""):
    """Yield every file below `folder`, or below `start` in it, by its path from `folder`.

    Paths have "/" between their parts, and are sorted by name, folder by folder.  Linked folders
    are followed, but no folder is entered twice, so a loop of links ends.  `report(path, reason)`
    is called for folders that cannot be opened.  Passed over are hidden files and folders,
    README.md, and what operating systems, photo managers and network storage leave beside
    photographs.
    """
    root = os.path.realpath(os.path.join(folder, start))
    visited, waiting = set(), [start]
    while waiting:
        path = waiting.pop()
        here = os.path.join(folder, path)
        if not os.path.isdir(here):
            yield path
            continue
        real = os.path.realpath(here)
        # A link to elsewhere in the tree: the folder is visited under its own name.
        into_tree = os.path.islink(here) and Path(real).is_relative_to(root)
        if real in visited or (into_tree and path != start):
            continue
        visited.add(real)
        try:
            names = sorted(os.listdir(real), reverse=True)
        except OSError as error:
            report(path or ".", error.strerror or str(error))
            continue
        below = f"{path}/" if path else ""
        waiting += [below + name for name in names if not _is_dropping(name)]


def _is_dropping(name):
    name = name.lower()
    return name.startswith(".") or name in DROPPINGS or name.endswith(SIDECARS)


def read(path, side):
    """One photograph as uint8 (side, side, 3), cut as described above.

    side: in pixels, or (height, width).  Raises `Unreadable` as `decode` does.
    """
    height, width = np.broadcast_to(side, 2).tolist()
    image = decode(path, 2 * max(height, width))
    across, down = image.size
    part_across, part_down = across, across * height / width
    if part_down > down:
        part_across, part_down = down * width / height, down
    left, top = (across - part_across) / 2, (down - part_down) / 2
    # Only the middle is scaled, so that a long strip does not become a longer one.
    box = left, top, left + part_across, top + part_down
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box))


def decode(path, least):
    """A picture file as a Pillow image in RGB, turned upright.

    least: a JPEG may come at a half, quarter or eighth of its size, if both sides stay at least
    so many pixels.  Raises `Unreadable` for whatever cannot be shown: no image, another format,
    truncated, empty, or more than `MAX_PIXELS` to decode.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("not a regular file")
        if not status.st_size:
            raise Unreadable("empty file")
        if os.fsdecode(path).lower().endswith(RAW):
            raise Unreadable("a camera's raw file: convert it to JPEG or TIFF")
        with Image.open(path, formats=READABLE) as image:
            width, height = image.size
            image.draft(None, (least, least))
            # Of a progressive JPEG the decoder holds all coefficients, whatever it hands over.
            if not image.info.get("progressive"):
                width, height = image.size
            if width * height > MAX_PIXELS:
                raise Unreadable(f"huge: {width} x {height} pixels")
            with _one_large if width * height > LARGE_PIXELS else nullcontext():
                image.load()
                # With a broken EXIF block it is still a photograph.
                with suppress(Exception):
                    if image.format != "TIFF":  # which is upright already
                        ImageOps.exif_transpose(image, in_place=True)
                return _rgb(image)
    except Unreadable:
        raise
    except Image.UnidentifiedImageError:
        raise Unreadable(_unidentified(path)) from None
    except Exception as error:  # a hostile file can make a decoder raise anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unreadable(" ".join(reason.split())) from error


def _rgb(image):
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    if image.mode == "F" or (image.mode == "I" and tags):
        kind = "floating-point numbers" if image.mode == "F" else "signed or 32-bit integers"
        raise Unreadable(f"its pixels are {kind} of unknown range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits a pixel, or 12
        (bits,) = tags.get(ExifTags.Base.BitsPerSample, (16,))
        grey = (np.asarray(image).astype(np.int32) >> bits - 8).astype(np.uint8)
        white_is_zero = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
        image = Image.fromarray(255 - grey if white_is_zero else grey)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _unidentified(path):
    """Why Pillow does not know a file, and what to do about it."""
    with open(path, "rb") as file:
        start = file.read(12)
    if start[4:8] == b"ftyp" and start[8:] in HEIC:
        return (
            "a HEIC photograph, which Pillow cannot read: convert it to JPEG (`heif-convert`, "
            "`magick`, or macOS's `sips -s format jpeg`)"
        )
    if start[4:8] == b"ftyp" and start[8:] in (b"avif", b"avis"):
        return "an AVIF image, which this Pillow cannot read: install Pillow 11.3 or newer"
    *names, last = (FORMATS[name] for name in READABLE)
    return f"not a {', '.join(names)} or {last} image"


def save(path, image):
    """Write uint8 (side, side, 3) to an open file or path as 8-bit PNG, which loses nothing."""
    Image.fromarray(image).save(path, format="PNG")


def read_batch(folder, paths, side):
    """The readable ones of `paths`, and what is wrong with the others.

    `paths` lead from `folder`.  side: as in `read`.  Returns (paths, images, skipped): images are
    uint8 (n, side, side, 3), skipped is a list of (path, reason).
    """
    images, skipped = {}, []
    for path in paths:
        try:
            images[path] = read(os.path.join(folder, path), side)
        except Unreadable as error:
            skipped.append((path, str(error)))
    shape = (-1, *np.broadcast_to(side, 2), 3)
    return list(images), np.array(list(images.values()), np.uint8).reshape(shape), skipped
