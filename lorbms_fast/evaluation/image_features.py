"""Features of whole images for comparing sets of them, and names of the comparisons."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from lorbms_fast.dataloader.resize import area_resize
from lorbms_fast.dataloader.store import checksum
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.inception import PUBLISHED_SHA256, load_inception
from lorbms_fast.similarity.features import load_extractor

OTHER_WEIGHTS = " (other Inception weights)"
"""Suffix of the names of measures by an Inception network with other weights than the published ones."""
TITLES = {"efficientnet-lite0": "EfficientNet-Lite0", "deepcluster": "DeepCluster", "descriptor": "colour and gradient"}


class Described(NamedTuple):
    """Features (B, D) and, where the network gives them, class probabilities (B, C)."""

    features: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None


@dataclass(frozen=True)
class ImageFeatures:
    """A way to describe images."""

    slug: str
    """Short name for files."""
    distance: str
    """Name of a Frechet distance between these features: `FID` for one network only."""
    score: str | None
    """Name of the score over class probabilities, if there are any: `IS` for that network only."""
    setting: str
    """Weights and resize, in words."""
    describe: Callable[[NDArray[np.uint8]], Described]
    """uint8 (B, S, S, 3) -> features."""


def image_features(
    inception: Path | None, extractor: str | None, weights: Path | None, device: torch.device
) -> ImageFeatures:
    """Choose Inception's features, or an extractor's; UserError unless just one is named, with weights that fit."""
    if inception is not None and extractor is None and weights is None:
        return inception_features(inception, device)
    if inception is None and extractor is not None:
        return extractor_features(extractor, weights, device)
    raise UserError(
        "name --inception FILE (weights inception-2015-12-05, e.g. pt_inception-2015-12-05-6726825d.pth) for FID and "
        "IS, or --features efficientnet-lite0 (or another, --weights are for these) for a distance that is not FID"
    )


def inception_features(weights: Path, device: torch.device) -> ImageFeatures:
    """Describe images by the features and classes that FID and IS are defined by, from the published weights.

    Other weights than these give other numbers, which must not bear those names: they get names of their own.
    """
    network = load_inception(weights, device)
    sha256 = checksum(weights)
    published = sha256 == PUBLISHED_SHA256

    @torch.inference_mode()
    def describe(images: NDArray[np.uint8]) -> Described:
        x = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float()
        features, probabilities = network(x)
        return Described(features.cpu().numpy(), probabilities.cpu().numpy())

    kind = "" if published else ", which is not that of inception-2015-12-05: comparable with no published number"
    setting = (
        f"weights {weights.name} (sha256 {sha256[:8]}{kind}); resize to 299 px bilinear as TensorFlow 1; "
        "scores from logits without bias"
    )
    if published:
        return ImageFeatures(_slug("inception", setting), "FID", "IS", setting, describe)
    slug = _slug("other-inception", setting)
    return ImageFeatures(slug, f"Frechet distance{OTHER_WEIGHTS}", f"class score{OTHER_WEIGHTS}", setting, describe)


def extractor_features(name: str, weights: Path | None, device: torch.device) -> ImageFeatures:
    """Describe images by one of `lorbms_fast.similarity.features`, which describe the four quadrants of a square.

    Four images laid into one square are its quadrants: each is described as if it were alone. Raises UserError if there
    is none of that name, or it describes quadrants by what surrounds them.
    """
    if name == "encoder":
        raise UserError("features 'encoder' are those of the judged network itself: choose others, e.g. descriptor")
    extractor = load_extractor(name, weights, device)
    half = extractor.side // 2

    def describe(images: NDArray[np.uint8]) -> Described:
        small = [area_resize(np.ascontiguousarray(image), half) for image in images]
        small += [small[-1]] * (-len(small) % 4)
        squares = np.stack(small).reshape(-1, 2, 2, half, half, 3).transpose(0, 1, 3, 2, 4, 5)
        found = extractor.extract(np.ascontiguousarray(squares.reshape(-1, 2 * half, 2 * half, 3)))
        return Described(found.reshape(len(small), -1)[: len(images)], None)

    title = TITLES.get(name, name)
    of_file = "" if weights is None else f" of {weights} (sha256 {checksum(weights)[:8]})"
    setting = (
        f"{name} features{of_file}, not Inception's; images resized to {half} px, then enlarged as that extractor "
        "enlarges quadrants"
    )
    return ImageFeatures(_slug(name, setting), f"{title} Frechet distance (not FID)", None, setting, describe)


def _slug(name: str, setting: str) -> str:
    return f"{name.replace(':', '-')}-{crc32(setting.encode()):08x}"
