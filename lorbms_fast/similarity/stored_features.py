"""Features that stay beside a store's neighbours, so that pictures from elsewhere can be searched for as well."""

import shutil
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from lorbms_fast.dataloader.neighbour_table import NEIGHBOURS, QUADRANTS
from lorbms_fast.dataloader.store import ImageStore, checksum

FILE = "features.npy"
"""File in a store's folder: float32 (4, N, D), the features of all quadrants."""
LARGEST = 2**30
"""Max. size in bytes: larger ones would outgrow the store and take more than seconds to search."""


def checksum_to_keep(features: Path) -> str | None:
    """SHA-256 of a file of features that is to stay, None if it is too large or there is none."""
    return checksum(features) if features.is_file() and features.stat().st_size <= LARGEST else None


def keep_features(store: ImageStore, features: Path) -> Path | None:
    """Move a file of features, if there is one, into the store's folder unless it is too large; older ones go."""
    target = store.path / FILE
    target.unlink(missing_ok=True)
    if not features.is_file() or features.stat().st_size > LARGEST:
        return None
    shutil.move(features, target)
    return target


def load_features(store: ImageStore) -> NDArray[np.float32] | None:
    """Map the features of a store, (4, N, D); None where none were kept, or they are of other images."""
    try:
        features: NDArray[np.float32] = np.load(store.path / FILE, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError):
        return None
    fits = features.ndim == 3 and features.shape[:2] == (QUADRANTS, len(store)) and features.dtype == np.float32
    return features if fits else None


def nearest_to(
    picture: NDArray[np.float32], features: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the ten images whose same quadrant is nearest to each quadrant of a picture, among all.

    Takes features (4, D) of the picture and (4, N, D), maybe mapped, of the store. Returns rows (4, 10), nearest
    first, and their squared L2 distances (4, 10).
    """
    found = [faiss.knn(one[None], of_store, NEIGHBOURS) for one, of_store in zip(picture, features, strict=True)]
    distances, rows = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rows, distances
