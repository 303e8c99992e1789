"""k-means by Faiss, on a GPU where both the device asked for and the installed Faiss are for one."""

from importlib import metadata

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

ITERATIONS, ROWS = 20, 256


def trained_kmeans(x: NDArray[np.float32], k: int, seed: int, device: torch.device) -> faiss.Kmeans:
    """Train k-means on finite x (N, D), N >= k: the result has `centroids` (k, D) and an `index` to find them by.

    Centroids are trained on at most `ROWS` rows each, drawn at random; on a GPU if Faiss can use it.
    """
    points = {"min_points_per_centroid": 1, "max_points_per_centroid": ROWS}
    kmeans = faiss.Kmeans(x.shape[1], k, niter=ITERATIONS, seed=seed, **points)
    if faiss_uses(device):  # this one: told only of a GPU, Faiss takes all that there are
        kmeans.index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index or 0, kmeans.index)
    kmeans.train(np.ascontiguousarray(x))
    return kmeans


def faiss_uses(device: torch.device) -> bool:
    """Check that the device is a GPU and that the installed build of Faiss sees one."""
    return device.type == "cuda" and faiss.get_num_gpus() > 0


def installed_faiss() -> list[str]:
    """List names and versions of Faiss's installed distributions, which all overwrite the same module."""
    found = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return sorted(f"{name} {version}" for name, version in found.items() if name and name.startswith("faiss"))


def told_faiss(device: torch.device) -> str:
    """Describe the installed Faiss and its device, with a warning if several overwrite one another."""
    found = installed_faiss()
    where = "on the GPU" if faiss_uses(device) else "on the CPU"
    text = f"{', '.join(found) or f'faiss {faiss.__version__}'}, {where}"
    if len(found) > 1:
        text += "\nwarning: these install the same module, of which one is in the other's place: keep one of them"
    return text
