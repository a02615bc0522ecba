"""Photographs on disk: found, read, and cut to the network's square.

A photograph becomes a square of the network's side (224 pixels) in this way: it is turned
upright as its EXIF orientation says, transparency is laid over white, grey becomes RGB, the
shorter side is scaled to the square's side (bicubic, with antialiasing), and the middle is cut
out.  A large JPEG is decoded at a half, quarter or eighth of its size when that leaves at least
twice the side.  Of an animation the first picture counts.  Colour profiles are not applied.

A picture that has the square's size already goes through unchanged, so what the attack saves as
PNG is read back pixel for pixel.
"""

import os
import stat
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from common.engine import cores

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
# Beyond this a file counts as a decompression bomb: a quarter of a gigabyte as RGB.
MAX_PIXELS = 90_000_000
# Pictures decoded at a time: each may hold a quarter of a gigabyte.
DECODERS = 4
# The text that goes with a folder of photographs is not reported as a broken photograph.
NO_PHOTO = "README.md"

# What matters of Pillow's warnings (huge, broken EXIF) `read` sees itself, and knows the file.
warnings.filterwarnings("ignore", module=r"PIL\.")

ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unreadable(Exception):
    """A file that is no photograph we can read; the message says why, in a few words."""


def walk(folder, report):
    """Yield every file below `folder` by its path from there, with "/" between its parts.

    Sorted by name, folder by folder.  Linked folders are followed, but no folder is entered
    twice, so a loop of links ends.  `report(path, reason)` is called for folders that cannot
    be opened.  README.md is passed over.
    """
    root = os.path.realpath(folder)
    entered = set()
    waiting = [("", True, False)]
    while waiting:
        path, is_folder, is_link = waiting.pop()
        if not is_folder:
            yield path
            continue
        real = os.path.realpath(os.path.join(folder, path))
        # A link to elsewhere in the tree: the folder is visited under its own name.
        inside = is_link and f"{real}{os.sep}".startswith(f"{root}{os.sep}")
        if inside or real in entered:
            continue
        entered.add(real)
        try:
            with os.scandir(real) as entries:
                found = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            report(path or ".", error.strerror or str(error))
            continue
        for entry in found:
            if entry.name != NO_PHOTO:
                below = f"{path}/{entry.name}" if path else entry.name
                # os.path.isdir, since entry.is_dir raises where a link leads to itself
                waiting.append((below, os.path.isdir(entry.path), entry.is_symlink()))


def read(path, side):
    """One photograph as uint8 (side, side, 3), cut as described above.

    Raises `Unreadable` for whatever cannot be shown: no image, another format, truncated, empty,
    more than `MAX_PIXELS`.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("not a regular file")
        if not status.st_size:
            raise Unreadable("empty file")
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Unreadable(f"huge: {width} x {height} pixels")
            return _square(image, side)
    except Unreadable:
        raise
    except Image.UnidentifiedImageError:
        raise Unreadable("not a JPEG, PNG, BMP, GIF or WebP image") from None
    except Image.DecompressionBombError:
        raise Unreadable(f"huge: more than {MAX_PIXELS} pixels") from None
    except Exception as error:  # a hostile file can make a decoder raise anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unreadable(" ".join(reason.split())) from error


def _square(image, side):
    """The middle of an opened image, upright, as uint8 (side, side, 3)."""
    image.draft(None, (2 * side, 2 * side))
    image.load()
    if image.mode.startswith("I"):  # 16 bits a pixel
        image = Image.fromarray((np.asarray(image).astype(np.int32) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image, orientation = image.convert("RGB"), _orientation(image)
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    # Only the middle square is scaled, so that a long strip does not become a longer one.
    square = image.resize(
        (side, side), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short)
    )
    if orientation in UPRIGHT:
        square = square.transpose(UPRIGHT[orientation])
    return np.asarray(square)


def _orientation(image):
    try:
        return image.getexif().get(ORIENTATION_TAG)
    except Exception:  # a photograph with a broken EXIF block is still a photograph
        return None


def save(path, image):
    """Write uint8 (side, side, 3) to an open file or path as 8-bit PNG, which loses nothing."""
    Image.fromarray(image).save(path, format="PNG")


def read_batch(folder, paths, side):
    """The readable ones of `paths`, and what is wrong with the others.

    `paths` lead from `folder`.  Returns (paths, images, skipped): images are uint8
    (n, side, side, 3), skipped is a list of (path, reason).  Several are decoded at a time, on
    the cores that this process may use.
    """

    def read_or_reason(path):
        try:
            return read(os.path.join(folder, path), side)
        except Unreadable as error:
            return str(error)

    with ThreadPoolExecutor(min(DECODERS, cores())) as decoders:
        found = list(zip(paths, decoders.map(read_or_reason, paths), strict=True))
    images = [image for _, image in found if not isinstance(image, str)]
    skipped = [(path, reason) for path, reason in found if isinstance(reason, str)]
    readable = [path for path, image in found if not isinstance(image, str)]
    square = np.stack(images) if images else np.zeros((0, side, side, 3), np.uint8)
    return readable, square, skipped
