"""A few photographs, read in this process: for the scripts that compare on them."""

import numpy as np

from common import command, files
from common.command import Failure
from common.imagenet import photo_folder, photos


def add_arguments(parser):
    """--images and --limit."""
    photo_folder.add_images(parser)
    command.add_count(parser, "--limit", "the first LIMIT photographs", 9)


def read(images, limit, side):
    """The first `limit` readable photographs of these files and folders, as a network sees them.

    Returns float32 (n, side, side, 3) in [0, 1].  Raises `Failure` when there is none.
    """
    folder, paths, _ = photo_folder.find(images)
    _, pixels, _ = photos.read_batch(folder, paths, side)
    if not len(pixels):
        raise Failure(f"no readable image in {files.show(folder)}")
    return pixels[:limit] / np.float32(255)
