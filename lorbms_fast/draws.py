"""Random numbers on the host that depend on a key alone."""

import numpy as np


def generator(*key: int) -> np.random.Generator:
    """Make the generator of a key, such as seed, purpose and number; nothing that was drawn before matters.

    >>> int(generator(0, 1).integers(100)), int(generator(0, 1).integers(100))
    (11, 11)
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
