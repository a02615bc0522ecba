"""How large noise is, in the measures of the papers.  Noise is (n, ...) in pixel units."""

import numpy as np


def sizes(noises):
    """|r|_2 of each noise image, (n,) float64."""
    flat = noises.reshape(len(noises), int(np.prod(noises.shape[1:])))
    # Squared and summed in float64, without a copy of all the noise in it.
    return np.sqrt(np.einsum("nd,nd->n", flat, flat, dtype=np.float64))


def summary(noises, reached):
    """Lines of a table: how many reached their target (bool (n,)), and the noise of all of them.

    Distortion is that of Szegedy et al. 2014, section 4.2: sqrt(mean r²) over an image's pixels,
    averaged over the images.
    """
    l2 = sizes(noises)
    pixels = noises[0].size
    return "\n".join(
        (
            f"attacked                     {len(noises):10d}",
            f"reached the target           {reached.mean():10.2%}",
            f"|r|_2, mean                  {l2.mean():10.4f}",
            f"|r|_2, median                {np.median(l2):10.4f}",
            f"distortion sqrt(mean r²)     {(l2 / np.sqrt(pixels)).mean():10.4f}",
            f"noise mean |r|               {np.abs(noises).mean():10.4f}",
            f"noise max                    {noises.max():10.4f}",
            f"noise min                    {noises.min():10.4f}",
        )
    )
