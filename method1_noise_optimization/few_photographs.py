"""A few photographs, read and attacked in this process: for the scripts that compare on them."""

import numpy as np

from common import command, files
from common.command import Failure
from common.imagenet import folder_attack, folder_script, photos
from method1_noise_optimization import photo_noise

ONE_LEVEL = "one grey level"


def add_arguments(parser):
    """--images and --limit."""
    folder_script.add_images(parser)
    command.add_count(parser, "--limit", "the first LIMIT photographs", 9)


def read(images, limit, side):
    """The first `limit` readable photographs of these files and folders, as a network sees them.

    Returns float32 (n, side, side, 3) in [0, 1].  Raises `Failure` when there is none.
    """
    folder, paths, _ = folder_attack.find(images)
    _, pixels, _ = photos.read_batch(folder, paths, side)
    if not len(pixels):
        raise Failure(f"no readable image in {files.show(folder)}")
    return pixels[:limit] / np.float32(255)


def towards(model, x, y_target, method):
    """The photographs with the noise of a method of attack.py, or of `ONE_LEVEL`: like x."""
    if method == ONE_LEVEL:
        steps = photo_noise.MAX_STEPS["grey levels"]
        return photo_noise.few_levels(
            model, x, y_target, levels=1, confidence=None, max_steps=steps
        )[0]
    steps = photo_noise.MAX_STEPS[method]
    return photo_noise.smallest_noise(model, x, y_target, method=method, max_steps=steps)[0]
