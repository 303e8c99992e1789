"""k-means by Faiss, on a GPU where both the device asked for and the installed Faiss are for one."""

from importlib import metadata

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

ITERATIONS = 20


def trained_kmeans(
    x: NDArray[np.float32], k: int, seed: int, device: torch.device, most_per_centroid: int = 256
) -> faiss.Kmeans:
    """Train k-means; the result has `centroids` (k, D) and an `index` that finds the nearest of them.

    Args:
        x: (N, D), N at least k, finite.
        k: number of centroids.
        seed: of the initial centroids.
        device: a GPU is used if Faiss can.
        most_per_centroid: rows that a centroid is trained on at most; of more, some are drawn.
    """
    kmeans = faiss.Kmeans(
        x.shape[1],
        k,
        niter=ITERATIONS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=most_per_centroid,
        gpu=faiss_uses(device),
    )
    kmeans.train(np.ascontiguousarray(x))
    return kmeans


def faiss_uses(device: torch.device) -> bool:
    """Whether Faiss computes on a GPU when this device is asked for: that takes a build of it that sees one."""
    return device.type == "cuda" and faiss.get_num_gpus() > 0


def installed_faiss() -> list[str]:
    """Names and versions of the installed distributions of Faiss; all bring the same module, the last one laid down."""
    found = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return sorted(f"{name} {version}" for name, version in found.items() if name and name.startswith("faiss"))


def told_faiss(device: torch.device) -> str:
    """Text: which Faiss is installed and where it computes; a warning if several overwrite one another."""
    found = installed_faiss()
    where = "on the GPU" if faiss_uses(device) else "on the CPU"
    text = f"{', '.join(found) or f'faiss {faiss.__version__}'}, {where}"
    if len(found) > 1:
        text += "\nwarning: these install the same module, of which one is in the other's place: keep one of them"
    return text
