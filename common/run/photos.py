"""Photographs on disk: found, read, and cut to the network's square.

A photograph becomes a square of the network's side (224 pixels), or a rectangle of its shape, in
this way: it is turned upright as its EXIF orientation says, transparency is laid over white, grey
becomes RGB, the shorter side is scaled (bicubic, with antialiasing), and the middle is cut out.  A
large JPEG is decoded at a half, quarter or eighth of its size when that leaves at least twice the
side.  Of an animation the first picture counts.  Colour profiles are not applied.  HEIC, as iPhones
write it, is read where the package pillow-heif is installed.

What has that size already goes through unchanged, so a saved PNG is read back pixel for pixel.
"""

import os
import threading
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from common import files
from common.command import Failure

with suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()
Image.init()
BICUBIC = Image.Resampling.BICUBIC
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "AVIF", "TIFF", "JPEG2000", "HEIF")
READABLE = tuple(name for name in FORMATS if name in Image.OPEN)
# HEIC and AVIF are tried in any case, so that a line says why one is skipped.
SUFFIXES = tuple(s for s, name in Image.registered_extensions().items() if name in READABLE)
SUFFIXES += (".heic", ".avif")
HINT = "" if "HEIF" in READABLE else " (HEIC needs `pip install pillow-heif`)"
NO_IMAGE = f"not a {', '.join(READABLE)} image{HINT}"

# Of what is decoded, a quarter of a gigabyte as RGB: more counts as a decompression bomb.
MAX_PIXELS = 90_000_000
# Pillow's own limit would refuse a JPEG of which only an eighth is decoded.
Image.MAX_IMAGE_PIXELS = None
# Broken EXIF, say, is no news.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Of several threads that decode, one at a time has a photograph above this size.
LARGE_PIXELS = 12_000_000
_one_large, _one_whole = threading.Lock(), threading.Lock()


class Unreadable(Exception):
    """A file that is no photograph we can read; the message says why, in a few words."""


def find(paths, report):
    """Return (folder, names): where the photographs lie, and which files are to be tried.

    paths: files, which count whatever their names, and folders, for the photographs below them, as
    in `walk`.  folder: the deepest one that holds all of them.  names: paths from there, each once.
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
    have "/" between their parts, and are sorted by name, folder by folder.  A link to a folder is
    followed where it leads out of the tree, once.  `report(path, reason)` is called for folders
    that cannot be opened.
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
            report(path or ".", files.reason(error))
            continue
        below = f"{path}/" if path else ""
        waiting += [below + name for name in names if not name.startswith(".")]


def read(path, side):
    """One photograph as uint8 (side, side, 3), cut as described above; side: or (height, width)."""
    return cut(decode(path, 2 * np.max(side)), side)


def cut(image, side):
    """The middle of a Pillow image, scaled: uint8 (side, side, 3); side: or (height, width)."""
    height, width = np.broadcast_to(side, 2).tolist()
    # Only the middle is scaled, so that a long strip does not become a longer one.
    return np.asarray(ImageOps.fit(image, (width, height), BICUBIC))


def decode(path, least):
    """A picture file as a Pillow image in RGB, turned upright.

    least: a JPEG may come smaller, if both sides stay at least so many pixels.  Raises `Unreadable`
    for whatever cannot be shown: no image, another format, or more than `MAX_PIXELS` to decode.
    """
    try:
        if not os.path.isfile(path):
            raise Unreadable("not a file")
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
        raise Unreadable(files.reason(error) or type(error).__name__) from error


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


def make_apart(path, folders):
    """Make the folder for PNGs; `Failure` where it is the first of `folders`, which holds all the
    photographs, or lies in one of the others, whose photographs are found."""
    place, (common, *given) = path.resolve(), [os.path.realpath(folder) for folder in folders]
    if place == Path(common) or any(map(place.is_relative_to, given)):
        raise Failure(
            f"--save-images {files.show(path)} lies among the photographs: what is saved there "
            "would be taken for one, or overwrite it; name a folder elsewhere"
        )
    with files.writing(path):
        path.mkdir(exist_ok=True)


def save_png(path, image):
    """Write uint8 (side, side, 3) as 8-bit PNG to a `Path`, and return it as it is read back."""
    _save(path, Image.fromarray(image), format="PNG")
    return read(path, image.shape[:2])


def save_whole(path, photograph, noise, quality):
    """Write a whole photograph with its noise as JPEG; return what is read back, of Pillow.

    photograph: its file.  noise: (h, w, 3) in [0, 1] units, for the middle that `cut` takes; it is
    scaled as that was, and around it nothing changes.  Of what the file says beside its pixels,
    only the profile of its colours is kept.  A JPEG above MAX_PIXELS comes smaller.
    """
    with _one_whole:
        try:
            image = decode(photograph, MAX_PIXELS)
        except Unreadable:  # though a half, quarter or eighth of it was read
            image = decode(photograph, 4000)
        profile = image.info.get("icc_profile") or b""
        profile = profile if profile[16:20] == b"RGB " else None  # not of what was grey, or CMYK
        image = Image.fromarray(_add(np.array(image), noise))
        _save(path, image, format="JPEG", quality=quality, icc_profile=profile)
        return decode(path, MAX_PIXELS)


def _add(whole, noise):
    """Noise (h, w, 3) added to the middle of a whole photograph (H, W, 3), uint8."""
    sides, small = np.array(whole.shape[:2]), np.array(noise.shape[:2])
    # So many of the photograph's pixels to one of the noise, and of the noise's beyond its edge.
    scale = (sides / small).min()
    beyond = (sides / scale - small) / 2
    margin = np.ceil(beyond).astype(int) + 2
    padded = np.pad(noise, [*zip(margin, margin, strict=True), (0, 0)]).astype(np.float32)
    (top, left), (height, width) = margin - beyond, sides / scale
    for channel in range(3):
        added = Image.fromarray(255 * padded[..., channel]).resize(
            whole.shape[1::-1], BICUBIC, (left, top, left + width, top + height)
        )
        whole[..., channel] = np.rint(whole[..., channel] + np.asarray(added)).clip(0, 255)
    return whole


def _save(path, image, **how):
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        image.save(temporary, **how)


def round_to_8_bits(model, pixels, x_adv, y):
    """The adversarial images as uint8, rounded towards the original `pixels` (uint8).

    No value moves further from the original than in x_adv, so epsilon still holds.
    """
    change = x_adv.astype(np.float64) * 255 - pixels
    # A thousandth is float32's rounding: 2 / 255 comes as 1.99999 or 2.00001 levels.
    levels = np.trunc(change + np.copysign(1e-3, change))
    return (pixels + levels).astype(np.uint8)


def read_batch(folder, side, batch):
    """Read a batch (photographs, more): what can be read of it, images, skipped, more.

    photographs: tuples that begin with a path from `folder`.  images: uint8 (n, side, side, 3),
    with side as in `read`.  skipped: a list of (path, reason).
    """
    (photographs, more), found, images, skipped = batch, [], [], []
    for photograph in photographs:
        try:
            images.append(read(os.path.join(folder, photograph[0]), side))
            found.append(photograph)
        except Unreadable as error:
            skipped.append((photograph[0], str(error)))
    shape = (-1, *np.broadcast_to(side, 2), 3)
    return found, np.array(images, np.uint8).reshape(shape), skipped, more
