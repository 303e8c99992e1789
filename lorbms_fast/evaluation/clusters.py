"""Pseudo-labels for knowledge transfer (Noroozi et al., CVPR 2018): k-means on a network's features."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.crops import row_batches
from lorbms_fast.evaluation.features import weights_fingerprint
from lorbms_fast.progress import tqdm
from lorbms_fast.similarity.kmeans import trained_kmeans

BATCH = 128


def pseudo_labels(
    folder: Path, backbone: nn.Module, store: ImageStore, k: int, seed: int, device: torch.device
) -> NDArray[np.int64]:
    """Find the cluster of every image of a store, (N,) numbers 0, 1, ... without gaps; kept in the folder.

    The backbone takes images to (B, D), in evaluation mode, on the device.

    Raises:
        UserError: there are fewer images than clusters.
    """
    if len(store) < k:
        raise UserError(f"{store.path} has {len(store)} images for {k} clusters: lower --clusters")
    images = store.digest[:16]
    path = folder / f"clusters-{weights_fingerprint(backbone)}-{images}-{k}-{seed}.npy"
    if path.exists():
        return np.load(path)
    features = store_features(backbone, store, device)
    assigned = trained_kmeans(features, k, seed, device).index.search(features, 1)[1][:, 0]
    labels = np.unique(assigned, return_inverse=True)[1].astype(np.int64)
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.save(file, labels)
    return labels


@torch.inference_mode()
def store_features(backbone: nn.Module, store: ImageStore, device: torch.device) -> NDArray[np.float32]:
    """Compute the features of all images of a store, (N, D), on its own side."""
    found = []
    with tqdm(total=len(store), desc="features", unit="images") as bar:
        for rows in row_batches(len(store), BATCH):
            images = to_float_nchw(np.array(store.images[rows.start : rows.stop])).to(device)
            found.append(backbone(images).float().cpu().numpy())
            bar.update(len(rows))
    return np.concatenate(found)
