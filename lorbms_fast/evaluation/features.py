"""Features of labelled pictures, computed once and kept on disk; and those of a store's images, clustered.

A folder holds `test.npy`, float32 (M, D), and a `view_0000.npy`, float16 (N, D), for each of the views that training
takes in turn. Files appear whole or not at all, so that an interrupted computation goes on where it was.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lorbms_fast.atomic_io import atomic_write, check_room
from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.dataloader.prefetch import ahead
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.crops import central_crops, row_batches, training_crops
from lorbms_fast.evaluation.datasets.labelled import Labelled
from lorbms_fast.evaluation.datasets.stl10 import Stl10
from lorbms_fast.evaluation.probe import LinearConfig
from lorbms_fast.progress import tqdm
from lorbms_fast.similarity.kmeans import trained_kmeans

BATCH, STORE_BATCH = 64, 128


@dataclass(frozen=True)
class FeatureCache:
    """Features of the training pictures in several views, and of the test pictures."""

    folder: Path
    views: int

    def epoch(self, epoch: int) -> Tensor:
        """Read the training pictures' features in an epoch's view, (N, D) float16."""
        return torch.from_numpy(np.load(self.folder / f"view_{epoch % self.views:04d}.npy"))

    def test(self) -> Tensor:
        """Read the test pictures' features, (M, D) float32."""
        return torch.from_numpy(np.load(self.folder / "test.npy"))


def cached_features(
    folder: Path, backbone: nn.Module, stl10: Stl10, config: LinearConfig, device: torch.device
) -> FeatureCache:
    """Compute the features that are not in the folder yet, whose name should tell all that they depend on.

    The backbone takes images to (B, D), in evaluation mode. Raises UserError if the disk is too small.
    """
    side, seed, epochs = config.side, config.probe.seed, config.probe.epochs
    views = min(config.views or epochs, epochs)

    @torch.inference_mode()
    def of_view(data: Labelled, view: int | None) -> Tensor:
        def make(rows: NDArray[np.int64]) -> Tensor:
            return central_crops(data, rows, side) if view is None else training_crops(data, rows, side, seed, view)

        return torch.cat([backbone(x.to(device)).float().cpu() for x in ahead(make, row_batches(len(data), BATCH))])

    wanted: list[tuple[str, Labelled, int | None]] = [("test.npy", stl10.test, None)]
    wanted += [(f"view_{view:04d}.npy", stl10.train, view) for view in range(views)]
    missing = [one for one in wanted if not (folder / one[0]).exists()]
    count = sum(len(data) for _, data, _ in missing)
    with tqdm(total=count, desc="features", unit="views", disable=not missing) as bar:
        for i, (name, data, view) in enumerate(missing):
            found = of_view(data, view)
            array = found.numpy() if view is None else found.half().numpy()
            if not np.isfinite(array).all():
                raise UserError(f"features for {folder} are no numbers or beyond 65,504: train anew")
            if i == 0:
                size = len(stl10.train) * found.shape[1] * 2 * len(missing)
                check_room(folder, size, "features", "make room or lower --views")
            with atomic_write(folder / name) as partial, partial.open("wb") as file:
                np.save(file, array)
            bar.update(len(data))
    return FeatureCache(folder, views)


def weights_fingerprint(network: nn.Module) -> str:
    """Compute a name that changes when any parameter or buffer does.

    >>> layer = nn.Linear(2, 2)
    >>> before = weights_fingerprint(layer)
    >>> layer.bias.data += 1
    >>> weights_fingerprint(layer) == before
    False
    """
    digest = sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def pseudo_labels(
    folder: Path, backbone: nn.Module, store: ImageStore, k: int, seed: int, device: torch.device
) -> NDArray[np.int64]:
    """Find the cluster of every image of a store, (N,) numbers 0, 1, ... without gaps; kept in the folder.

    The backbone takes images to (B, D), in evaluation mode, on the device. Raises UserError if there are fewer images
    than clusters.
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
def store_features(network: nn.Module, store: ImageStore, device: torch.device) -> NDArray[np.float32]:
    """Compute what a network makes of all images of a store, (N, ...), on its own side."""
    found = []
    with tqdm(total=len(store), desc="features", unit="images") as bar:
        for rows in row_batches(len(store), STORE_BATCH):
            images = to_float_nchw(store.images[rows]).to(device)
            found.append(network(images).float().cpu().numpy())
            bar.update(len(rows))
    return np.concatenate(found)
