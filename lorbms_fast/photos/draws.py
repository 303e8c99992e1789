"""Independent random numbers for every picture."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Purposes of random numbers; the values are part of what a seed means, so they never change."""

    SCENES = 1
    OBJECT_SPLIT = 2
    FOLDS = 3
    TRAIN_PICTURES = 4
    TEST_PICTURES = 5
    TRAIN_LABELS = 6
    TEST_LABELS = 7


def generator(seed: int, stream: Stream, index: int = 0) -> np.random.Generator:
    """Make the generator of picture `index` of `stream`, which depends on nothing else."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(stream, index))))
