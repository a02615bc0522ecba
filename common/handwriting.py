"""A picture of one handwritten digit, made into what MNIST's digits are.

LeCun et al. (1998, section III.A) scaled each digit's ink to fit 20 x 20 pixels with its aspect
ratio kept, which made it grey by antialiasing, and put its centre of mass into the middle of
28 x 28.  Before that comes what their scanner spared them: the light on the paper is uneven, the
pen has a colour, the picture is larger and its strokes are thinner.
"""

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage
from scipy.spatial import ConvexHull

from common.run import photos
from common.run.photos import Unreadable

SIDE, BOX, MIDDLE = 28, 20, 14
# A picture is worked on at no more than this (pixels), and a digit at this before it is made small.
LARGEST, LARGE = 700, 200
# Of the range from black to white: less than that is a mark on the paper, not ink.
CONTRAST = 0.1
# Pixels of 20: of MNIST's strokes, nine of ten are wider.
STROKE = 2.1
# A digit is at most so many times as wide as it is high: MNIST's widest is 2.
WIDEST = 2.0
# Of the area that a string around it would enclose, the ink of a digit that is not narrow fills no
# more than this: five of MNIST's 10,000 test digits do.
FILLED = 0.9
# So often a digit may touch the edges of a picture that is cut to it.
TOUCHES = 6
BLANK = "blank, or nothing stands out from an even paper"
CUT = "cut the picture down to one digit"


def label_of(path):
    """The digit that a file's name begins with, alone ("2.png") or set off ("2_second.jpg").

    Raises `Unreadable` where there is none.
    """
    found = re.match(r"([0-9])(?![0-9A-Za-z])", Path(path).stem)
    if not found:
        raise Unreadable("its name does not begin with its digit, as 2.png does: give --label")
    return int(found[1])


def read(path):
    """A picture file as uint8 (height, width, 3), upright, no side longer than `LARGEST`.

    Raises `Unreadable` as `photos.decode` does.
    """
    image = photos.decode(path, LARGEST)
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.BICUBIC)
    return np.asarray(image)


def like_mnist(picture):
    """One digit as MNIST has them: float32 (28, 28) in [0, 1], white ink on black.

    picture: uint8 (height, width, 3), dark on light or light on dark.  Raises `Unreadable` for a
    blank picture, and where it is not plain which ink is the digit.
    """
    ink, full = _ink(picture)
    kept = _one_digit(ink > full / 2)
    # A gentle threshold: the edge of a stroke stays grey.
    grey = np.where(kept, ((ink - 0.3 * full) / (0.5 * full)).clip(0, 1), 0)
    large = _scaled(grey, LARGE)
    large = _scaled(_thickened(large), BOX)
    corner = np.round(MIDDLE - np.array(ndimage.center_of_mass(large))).astype(int)
    # Not even a lopsided digit may leave the image.
    top, left = corner.clip(0, SIDE - np.array(large.shape))
    image = np.zeros((SIDE, SIDE), np.float32)
    image[top : top + large.shape[0], left : left + large.shape[1]] = large / large.max()
    return image


def _ink(picture):
    """How far each pixel lies from the paper towards the ink: (h, w), and a stroke's typical value.

    The paper is the smooth surface, quadratic in each colour, that most of the picture is close
    to: so shadows go, and it does not matter which of the two is darker, or what colour they have.
    """
    radius = 0.7 * max(picture.shape) / LARGEST
    blurred = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius))
    colours = np.asarray(blurred, np.float64) / 255
    blurred.thumbnail((60, 60), Image.Resampling.BOX, reducing_gap=None)
    terms = _quadratic(blurred.height, blurred.width)
    values = np.asarray(blurred).reshape(-1, 3) / 255
    close = np.full(len(values), True)
    for _ in range(15):  # least trimmed squares
        near = terms[close].T
        surface = np.linalg.lstsq(near @ near.T, near @ values[close], rcond=None)[0]
        distance = np.linalg.norm(values - terms @ surface, axis=1)
        close = distance <= np.quantile(distance, 0.5)
    away = colours - (_quadratic(*colours.shape[:2]) @ surface).reshape(colours.shape)
    distance = np.linalg.norm(away, axis=2)
    strokes = distance >= distance.max() / 2
    direction = away[strokes].mean(axis=0)
    length = np.linalg.norm(direction)
    if length < 1e-6:
        raise Unreadable(BLANK)
    ink = away @ (direction / length)
    # The standard deviation of the paper's grain, by the third of all pixels closest to it.
    full, grain = np.median(ink[strokes]), np.quantile(np.abs(ink), 1 / 3) / 0.431
    # Grey has the same value in three colours: its distance is √3 times that.
    if full < max(CONTRAST * 3**0.5, 6 * grain):
        raise Unreadable(BLANK)
    return ink, full


def _quadratic(height, width):
    """1, x, y, x², xy and y² at each pixel: (height * width, 6)."""
    y, x = (array.ravel() for array in np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j])
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def _one_digit(mask):
    """The part of a mask of ink, bool (h, w), that is the digit, with some room around it.

    Specks are left out; the parts of one digit may lie a little apart, as the bar of a 5.  Raises
    `Unreadable` where there is other ink: which of it is the digit is not guessed.
    """
    cell = -(-max(mask.shape) // LARGE)
    padded = np.pad(mask, [(0, -size % cell) for size in mask.shape])
    cells = padded.reshape(padded.shape[0] // cell, cell, -1, cell).any(axis=(1, 3))
    labels, count = ndimage.label(cells, np.ones((3, 3)))
    parts = [np.argwhere(labels == label) for label in range(1, count + 1)]
    main = max(parts, key=len)
    size = _size(main)
    if size < max(cells.shape) / 33:
        raise Unreadable("blank, but for specks")
    _check_strokes(main)
    parts = [p for p in parts if len(p) > len(main) / 50 or _size(p) > max(cells.shape) / 20]
    speck = max(cells.shape) / 60
    large = [part for part in parts if _size(part) > speck]
    edge = np.concatenate([cells[0], cells[:, -1], cells[-1, ::-1], cells[::-1, 0]])
    at_edge = any(part.min() == 0 or (part + 1 == cells.shape).any() for part in large)
    if (len(large) > 1 and at_edge) or np.diff(edge, prepend=False).sum() > 2 * TOUCHES:
        raise Unreadable(f"ink at the edge of the picture and elsewhere: {CUT}, with paper around")

    kept = np.zeros_like(cells)
    for part in parts:
        inner, outer = sorted((part, main), key=_size)
        around = (inner.min(axis=0) > outer.min(axis=0)) & (inner.max(axis=0) < outer.max(axis=0))
        gap = np.maximum(part.min(axis=0) - main.max(axis=0), main.min(axis=0) - part.max(axis=0))
        high, wide = np.ptp(part, axis=0) + 1
        if around.all() and _size(inner) > 0.25 * _size(outer):
            raise Unreadable(f"a frame around the digit: {CUT}")
        # Beside the rest there can only be a bar.
        apart = gap.max() > 0.15 * size or (gap[1] > 0 and high > 0.6 * wide)
        if apart and _size(part) > speck:
            raise Unreadable(f"several digits, or other ink beside one: {CUT}")
        kept[tuple(part.T)] = not apart
    rows, columns = (np.flatnonzero(kept.any(axis=axis)) for axis in (1, 0))
    if np.ptp(columns) + 1 > WIDEST * (np.ptp(rows) + 1):
        raise Unreadable(f"wider than any digit: {CUT}, upright")
    room = Image.fromarray(kept).convert("L").filter(ImageFilter.MaxFilter(3))
    room = np.asarray(room).repeat(cell, axis=0).repeat(cell, axis=1) > 0
    return room[: mask.shape[0], : mask.shape[1]]


def _size(part):
    """The longer side of what some cells (k, 2) fill."""
    return np.ptp(part, axis=0).max() + 1


def _check_strokes(part):
    """Raise `Unreadable` where the cells (k, 2) are an area or a box, but for narrow ones."""
    hull = ConvexHull(np.concatenate([part + corner for corner in np.ndindex(2, 2)])).volume
    if hull < 0.35 * _size(part) ** 2:
        return
    if len(part) > FILLED * hull:
        raise Unreadable(f"a filled area, such as a note or a card: {CUT}")
    along = []  # how far ink goes along each side of the rectangle around it
    for axis in (0, 1):
        for end in (part[:, axis].min(), part[:, axis].max()):
            near = np.abs(part[:, axis] - end) <= _size(part) / 20
            along.append(np.unique(part[near, 1 - axis]).size / (np.ptp(part[:, 1 - axis]) + 1))
    if min(along) > 0.9:
        raise Unreadable(f"a box: {CUT}, without its lines")


def _scaled(grey, side):
    """The ink of an image, cut out and scaled so that its longer side has `side` pixels."""
    box = ndimage.find_objects((grey > 0.2 * grey.max()).astype(int))[0]
    cut = grey[box].astype(np.float32)
    scale = side / max(cut.shape)
    width, height = (max(1, round(size * scale)) for size in cut.shape[::-1])
    scaled = Image.fromarray(cut).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(scaled)


def _thickened(large):
    """Strokes thinner than `STROKE` made that wide, or scaling would make them faint."""
    ink = np.pad(large > 0.5, 1)
    # Half of the outline is as long as the stroke.
    width = 2 * ink.sum() / (ink & ~ndimage.binary_erosion(ink)).sum()
    missing = round((STROKE * LARGE / BOX - width) / 2)
    if missing <= 0:
        return large
    padded = (np.pad(large, missing) * 255).astype(np.uint8)
    return ndimage.maximum_filter(padded, 2 * missing + 1).astype(np.float32) / 255
