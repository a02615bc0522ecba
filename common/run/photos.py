"""Photographs on disk: found, read, and cut to the network's square.

A photograph becomes a square of the network's side (224 pixels) in this way: it is turned
upright as its EXIF orientation says, transparency is laid over white, grey becomes RGB, the
shorter side is scaled to the square's side (bicubic, with antialiasing), and the middle is cut
out; of a network that takes no squares, a rectangle of its shape in the same way.  A large JPEG is
decoded at a half, quarter or eighth of its size when that leaves at least twice the side.  Of an
animation or a file of several pages the first picture counts.  Colour profiles are not applied.
HEIC, as iPhones write it, is read where the package pillow-heif is installed.

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

with suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()
Image.init()
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "AVIF", "TIFF", "JPEG2000", "HEIF")
READABLE = tuple(name for name in FORMATS if name in Image.OPEN)
# In a folder these are tried, HEIC and AVIF in any case, so that a line says why one is skipped.
SUFFIXES = tuple(s for s, name in Image.registered_extensions().items() if name in READABLE)
SUFFIXES += (".heic", ".avif")
HINT = "" if "HEIF" in READABLE else " (HEIC needs `pip install pillow-heif`)"
NO_IMAGE = f"not a {', '.join(READABLE)} image{HINT}"

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


class Unreadable(Exception):
    """A file that is no photograph we can read; the message says why, in a few words."""


def find(paths, report):
    """Return (folder, names): where the photographs lie, and which files are to be tried.

    paths: one or more files and folders.  A folder stands for the photographs below it, in the
    order of `walk`; a file that is named counts, whatever its name.  `folder` is the deepest one
    that holds all of them: the folder itself where one is given.  `names` lead from there, with
    "/" between their parts, each once.  `report(name, reason)` is called for folders that cannot
    be opened.  Raises `Failure` for a path that leads nowhere, and where there is no photograph.
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
    if not names:
        raise Failure(f"no image in {files.show(folder)}: no file there ends in .jpg, .png or such")
    return folder, list(names)


def walk(folder, report, start=""):
    """Yield the photographs below `folder`, or below `start` in it, by their paths from `folder`.

    A photograph ends in one of SUFFIXES, and neither it nor a folder above it is hidden.  Paths
    have "/" between their parts, and are sorted by name, folder by folder.  Linked folders are
    followed, but no folder is entered twice, so a loop of links ends.  `report(path, reason)` is
    called for folders that cannot be opened.
    """
    root = os.path.realpath(os.path.join(folder, start))
    visited, waiting = set(), [start]
    while waiting:
        path = waiting.pop()
        here = os.path.join(folder, path)
        if not os.path.isdir(here):
            if path == start or path.lower().endswith(SUFFIXES):
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
        waiting += [below + name for name in names if not name.startswith(".")]


def read(path, side):
    """One photograph as uint8 (side, side, 3), cut as described above.

    side: in pixels, or (height, width).  Raises `Unreadable` as `decode` does.
    """
    height, width = np.broadcast_to(side, 2).tolist()
    image = decode(path, 2 * max(height, width))
    # Only the middle is scaled, so that a long strip does not become a longer one.
    return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC))


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
        raise Unreadable(NO_IMAGE) from None
    except Exception as error:  # a hostile file can make a decoder raise anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unreadable(" ".join(reason.split())) from error


def _rgb(image):
    if image.mode[0] in "IF":
        tags = getattr(image, "tag_v2", {})  # of a TIFF
        if tags.get(ExifTags.Base.BitsPerSample, (16,)) != (16,):
            raise Unreadable("its pixels have neither 8 nor 16 bits")
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def save_png(path, image):
    """Write uint8 (side, side, 3) as 8-bit PNG to a `Path`, and return it as it is read back."""
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
    return read(path, image.shape[:2])


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
