"""Split a store into images to learn from and images to test on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.counted import counted
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.draws import generator
from lorbms_fast.errors import UserError

SPLIT = 11
"""Purpose of this random draw, unlike others."""


@dataclass(frozen=True)
class Split:
    """Rows of a store; all versions of one photograph are in the same part."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def split_photographs(store: ImageStore, share: float, seed: int) -> Split:
    """Deal a store's photographs: a share to learn from, one on either side at least; UserError below four."""
    photographs = photographs_of(store)
    total = int(photographs.max(initial=-1)) + 1
    if total < 4:
        raise UserError(f"{store.path} has {counted(total, 'photograph')}, too few to test on some: prepare more")
    order = generator(seed, SPLIT).permutation(total)
    learned = np.isin(photographs, order[: min(max(1, round(share * total)), total - 1)])
    return Split(np.flatnonzero(learned), np.flatnonzero(~learned))


def photographs_of(store: ImageStore) -> NDArray[np.int64]:
    """Number the photographs of a store by their places, files or parts of files: (N,), the number of each image's."""
    places = list(zip(*(store.index[name].to_pylist() for name in ("source", "offset")), strict=True))
    numbers = {place: number for number, place in enumerate(sorted(set(places)))}
    return np.array([numbers[place] for place in places], np.int64)
