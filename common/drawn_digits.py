"""Ten digits drawn by the computer as a hand would, each on another kind of paper.

They stand in for a reader's own handwriting where my_digits.py is given none.
"""

import numpy as np
from PIL import Image, ImageDraw

# The strokes of each digit: points from the left (0 to 1) and from the top, joined by a curve.
STROKES = {
    0: [[(0.62, 0.02), (0.2, 0.15), (0.08, 0.6), (0.4, 1), (0.85, 0.7), (0.9, 0.25), (0.55, 0)]],
    1: [[(0.62, 0), (0.55, 0.5), (0.47, 1)]],
    2: [
        [(0.1, 0.25), (0.4, 0), (0.82, 0.2), (0.6, 0.6), (0.08, 1)],
        [(0.08, 1), (0.5, 0.95), (0.95, 0.98)],
    ],
    3: [
        [(0.15, 0.12), (0.5, 0), (0.8, 0.2), (0.4, 0.46)],
        [(0.4, 0.46), (0.85, 0.65), (0.7, 0.95), (0.35, 1), (0.08, 0.85)],
    ],
    4: [
        [(0.3, 0.02), (0.18, 0.35), (0.1, 0.6)],
        [(0.1, 0.6), (0.5, 0.6), (0.95, 0.55)],
        [(0.72, 0.1), (0.68, 0.6), (0.62, 1)],
    ],
    5: [
        [(0.25, 0.03), (0.22, 0.2), (0.18, 0.42)],
        [(0.18, 0.42), (0.6, 0.38), (0.85, 0.68), (0.55, 0.98), (0.1, 0.92)],
        [(0.25, 0.03), (0.55, 0.05), (0.9, 0)],
    ],
    6: [[(0.65, 0), (0.25, 0.35), (0.12, 0.75), (0.45, 1), (0.8, 0.8), (0.6, 0.55), (0.18, 0.75)]],
    7: [[(0.1, 0.05), (0.5, 0.06), (0.88, 0.02)], [(0.88, 0.02), (0.6, 0.5), (0.4, 1)]],
    8: [
        [(0.75, 0.12), (0.45, 0), (0.2, 0.2), (0.5, 0.48), (0.8, 0.75), (0.5, 1), (0.18, 0.8)],
        [(0.18, 0.8), (0.45, 0.52), (0.75, 0.28), (0.75, 0.12)],
    ],
    9: [
        [(0.8, 0.15), (0.45, 0), (0.18, 0.25), (0.4, 0.5), (0.78, 0.3), (0.8, 0.15)],
        [(0.8, 0.15), (0.75, 0.55), (0.62, 1)],
    ],
}
BLACK, GREY = (0, 0, 0), (70, 70, 75)
# For each digit: width and height of the picture, where the digit's middle lies and how high it is
# (shares of the width and height), how wide the pen is (of the digit's height), ink and paper, how
# much darker the paper's far corner is, and how grainy the paper (standard deviation, of 255).
PICTURES = (
    ((300, 300), (0.5, 0.5), 0.6, 0.1, BLACK, (228, 230, 234), 0, 0),
    ((400, 300), (0.3, 0.55), 0.5, 0.08, (30, 50, 150), (250, 248, 240), 0.2, 3),
    ((300, 300), (0.5, 0.5), 0.6, 0.1, (240, 240, 230), (40, 70, 55), 0.1, 4),
    ((1500, 1000), (0.6, 0.4), 0.4, 0.03, GREY, (235, 230, 220), 0.3, 6),
    ((300, 400), (0.6, 0.6), 0.4, 0.1, (190, 30, 40), (250, 250, 250), 0.1, 2),
    ((300, 300), (0.5, 0.5), 0.7, 0.14, BLACK, (250, 220, 90), 0, 3),
    ((500, 400), (0.7, 0.4), 0.35, 0.07, (20, 20, 60), (225, 225, 225), 0.45, 8),
    ((300, 300), (0.5, 0.5), 0.6, 0.09, (20, 120, 60), (245, 245, 250), 0.2, 4),
    ((400, 400), (0.5, 0.5), 0.6, 0.09, (255, 210, 60), (60, 20, 90), 0, 5),
    ((400, 300), (0.45, 0.5), 0.7, 0.06, GREY, (240, 238, 230), 0.25, 10),
)


def curve(points, steps=24):
    """A smooth line through points (k, 2): a Catmull-Rom spline, as an array (n, 2)."""
    points = np.array(points, float)
    before, after = 2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1]
    points = np.concatenate([before, points, after])
    t = np.linspace(0, 1, steps)[:, np.newaxis]
    powers = np.concatenate([t**0, t, t**2, t**3], axis=1)
    spline = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    return np.concatenate([powers @ spline @ points[i : i + 4] for i in range(len(points) - 3)])


def draw(digit, size, middle, height, pen, ink, paper, shadow, grain, *, seed=0):
    """One digit as a picture, uint8 (height, width, 3): see `PICTURES`."""
    finer = 2  # drawn larger and scaled down, for smooth edges
    canvas = Image.new("L", (finer * size[0], finer * size[1]))
    brush = ImageDraw.Draw(canvas)
    tall = height * canvas.height
    place = np.array(middle) * canvas.size
    radius = pen * tall / 2
    for stroke in STROKES[digit]:
        line = (curve(stroke) - 0.5) * (0.7 * tall, tall) + place
        for x, y in np.concatenate([line[:-1] + np.diff(line, axis=0) * k / 8 for k in range(9)]):
            brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    share = np.asarray(canvas.resize(size, Image.Resampling.BOX))[..., np.newaxis] / 255
    y, x = np.mgrid[0 : 1 : size[1] * 1j, 0 : 1 : size[0] * 1j]
    light = 1 - shadow * (x + y)[..., np.newaxis] / 2
    picture = (share * ink + (1 - share) * paper) * light
    picture += np.random.default_rng([seed, digit]).normal(0, grain, picture.shape)
    return picture.round().clip(0, 255).astype(np.uint8)


def ten():
    """The ten digits in order: a list of pictures, uint8 (height, width, 3)."""
    return [draw(digit, *settings) for digit, settings in enumerate(PICTURES)]
