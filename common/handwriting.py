"""A picture of one handwritten digit, made into what MNIST's digits are.

LeCun et al. (1998, section III.A) scaled each digit's ink to fit 20 x 20 pixels with its aspect
ratio kept, which made it grey by antialiasing, and put its centre of mass into the middle of
28 x 28.  Before that comes what their scanner spared them: the light on the paper is uneven, the
pen has a colour, the picture is larger and its strokes are thinner.
"""

import re
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from common.run import photos
from common.run.photos import Unreadable

SIDE, BOX, MIDDLE = 28, 20, 14
# The longer side of a picture as it is worked on, of a digit before it is made small, and of the
# small picture in which the paper is estimated (pixels).
LARGEST, LARGE, SMALL = 500, 200, 48
# Of the range from black to white: less than that is a mark on the paper, not ink.
CONTRAST = 0.1
# Pixels of 20: of MNIST's strokes, nine of ten are wider.
STROKE = 2.1
BLANK = "blank, or nothing stands out from an even paper"


def label_of(path):
    """The digit that a file's name begins with, alone ("2.png") or set off ("2_second.jpg")."""
    found = re.match(r"([0-9])(?![0-9A-Za-z])", Path(path).stem)
    if not found:
        raise Unreadable("its name does not begin with its digit, as 2.png does: give --label")
    return int(found[1])


def read(path):
    """A picture file as uint8 (height, width, 3), upright, no side longer than `LARGEST`."""
    image = photos.decode(path, LARGEST)
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.BICUBIC)
    return np.asarray(image)


def like_mnist(picture):
    """The digit of a picture as MNIST has them: float32 (28, 28) in [0, 1], white ink on black.

    picture: uint8 (height, width, 3), dark on light or light on dark.  Other ink that lies apart
    from the largest piece is left out.  Raises `Unreadable` where nothing stands out from the
    paper, or touches all its edges.
    """
    ink = _ink(picture)
    # A gentle threshold: the edge of a stroke stays grey.
    grey = np.where(_digit(ink > 0.5), ((ink - 0.3) / 0.5).clip(0, 1), 0)
    small = _scaled(_thickened(_scaled(grey, LARGE)), BOX)
    corner = np.round(MIDDLE - np.array(ndimage.center_of_mass(small))).astype(int)
    # Not even a lopsided digit may leave the image.
    top, left = corner.clip(0, SIDE - np.array(small.shape))
    image = np.zeros((SIDE, SIDE), np.float32)
    image[top : top + small.shape[0], left : left + small.shape[1]] = small / small.max()
    return image


def _ink(picture):
    """How far each pixel lies from the colour of the paper, as a share of a stroke: (h, w).

    The paper is the median of each colour around a pixel: shadows go, colours do not matter.
    """
    image = Image.fromarray(picture)
    small = image.copy()
    small.thumbnail((SMALL, SMALL), Image.Resampling.BOX, reducing_gap=None)
    size = max(small.size) * 3 // 5 + 1
    paper = ndimage.median_filter(np.asarray(small), (size, size, 1), mode="mirror")
    paper = Image.fromarray(paper).resize(image.size, Image.Resampling.BICUBIC)
    away = (picture.astype(float) - np.asarray(paper)) / 255
    # Grey has the same value in three colours: the distance is √3 times that.
    distance = np.linalg.norm(away, axis=2) / 3**0.5
    full = np.median(distance[distance >= distance.max() / 2])
    if full < max(CONTRAST, 6 * np.quantile(distance, 1 / 3)):
        raise Unreadable(BLANK)
    return distance / full


def _digit(mask):
    """The largest connected part of a mask of ink, bool (h, w), and what lies near, with room."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    main = sizes.argmax()
    rows, columns = ndimage.find_objects(labels)[main - 1]
    spans = rows.stop - rows.start, columns.stop - columns.start
    if spans == mask.shape:
        raise Unreadable("its ink touches all four edges: leave paper around the digit")
    if max(spans) < max(mask.shape) / 33:
        raise Unreadable(BLANK)
    # Such as the bar of a 5; not specks.
    near = np.unique(labels[ndimage.distance_transform_edt(labels != main) < max(spans) / 10])
    kept = np.isin(labels, near[sizes[near] > sizes[main] / 50])
    return ndimage.distance_transform_edt(~kept) < max(spans) / 50 + 2


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
    missing = max(0, round((STROKE * LARGE / BOX - width) / 2))
    return ndimage.maximum_filter(np.pad(large, missing), 2 * missing + 1)
