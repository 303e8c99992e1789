"""The threshold of Algorithm 1, for features on whose scale the thesis's 16,000 means nothing."""

import numpy as np
import torch
from numpy.typing import NDArray

from lorbms_fast.mixing import mixing_mask

DRAWS = 200_000
"""At most this many draws; a dozen images drawn 20 times each cannot tell half from 47%."""


def replaced_fraction(distances: NDArray[np.float32], tau: float) -> float:
    """Fraction of the quadrants that a threshold replaces, by the distances (N, 4) of drawn candidates."""
    return mixing_mask(torch.from_numpy(distances), tau).float().mean().item()


def half_replacing_tau(distances: NDArray[np.float32]) -> float:
    """Find the quantile of distances (N, 4, 10) at which random candidates replace half the quadrants.

    The farthest of four always stays and the nearest always goes, so tau is the median of the two between.
    """
    between = np.sort(draw(distances), axis=1)[:, 1:3]
    return float(np.quantile(between, 0.5, method="inverted_cdf"))


def draw(distances: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
    """Draw candidates independently and uniformly, of few images again and again: their distances (M, 4).

    Whole rounds of all images, at most `DRAWS` draws.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    images = generator.permutation(len(distances))[:DRAWS]
    images = np.tile(images, DRAWS // len(images))
    ranks = generator.integers(distances.shape[2], size=(len(images), distances.shape[1]))
    return distances[images[:, None], np.arange(distances.shape[1]), ranks]
