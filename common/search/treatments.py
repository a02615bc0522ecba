"""What becomes of a picture on its way: scaled, saved as JPEG or WebP, sent on by a messenger.

A treatment is a function (image, rng) -> image of RGB images of Pillow; rng is a NumPy generator,
which those leave alone that are not random.  `NAMED` are the ones of a table: a further one is
added by writing it there.  `on_its_way` is the random one that survive.py searches with.
"""

import functools
import io

import numpy as np
from PIL import Image

BICUBIC = Image.Resampling.BICUBIC
FILTERS = Image.Resampling.BILINEAR, BICUBIC, Image.Resampling.LANCZOS
# The random way: how far it is scaled, the first time and the second; the qualities of its files.
FIRST, SECOND, QUALITIES = (0.5, 3), (0.7, 3), (50, 96)


def saved(image, rng=None, *, format="JPEG", **how):
    """The image as it is read back from a file.  how: Pillow's `quality`, `subsampling`."""
    file = io.BytesIO()
    image.save(file, format, **how)
    return Image.open(file).convert("RGB")


def scaled(image, rng=None, *, side, of=224):
    """The image scaled by side / of, and back to its own size."""
    width, height = (max(1, round(length * side / of)) for length in image.size)
    return image.resize((width, height), BICUBIC).resize(image.size, BICUBIC)


def sent(image, rng=None):
    """As a messenger sends a picture on: its longer side 600 pixels at most, JPEG of quality 70."""
    image = image.copy()
    image.thumbnail((600, 600), BICUBIC)
    return saved(image, quality=70)


def on_its_way(image, rng):
    """Scaled, then saved with loss, then at times both once more; back in its own size."""
    size = image.size
    for limits in (FIRST, SECOND)[: 1 + (rng.random() < 0.3)]:
        if rng.random() < 0.8:
            factor = np.exp(rng.uniform(*np.log(limits)))
            width, height = (max(1, round(length * factor)) for length in image.size)
            image = image.resize((width, height), FILTERS[rng.integers(3)])
        if rng.random() < 0.85:
            quality = int(rng.integers(*QUALITIES))
            if rng.random() < 0.25:
                image = saved(image, format="WEBP", quality=quality)
            else:  # colours in full, or at half the size
                image = saved(image, quality=quality, subsampling=int(rng.choice([0, 2])))
    return image if image.size == size else image.resize(size, FILTERS[rng.integers(3)])


NAMED = {f"jpeg_{q}": functools.partial(saved, quality=q) for q in (95, 85, 75, 60)}
NAMED["webp_80"] = functools.partial(saved, format="WEBP", quality=80)
NAMED |= {f"scaled_{side}": functools.partial(scaled, side=side) for side in (160, 192, 300, 448)}


def treated(pixels, treatment, rng=None):
    """What a treatment makes of one image: uint8 (h, w, 3), and so again."""
    return np.asarray(treatment(Image.fromarray(pixels), rng))
