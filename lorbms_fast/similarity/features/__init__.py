"""Feature extractors by name. A new one is a module and a line in `EXTRACTORS`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from lorbms_fast.errors import UserError
from lorbms_fast.similarity.features import deepcluster, descriptor, efficientnet, encoder, timm_torchvision
from lorbms_fast.similarity.features.extractor import Extractor

Load = Callable[[Path | None, torch.device], Extractor]
EXTRACTORS: dict[str, tuple[Load, str]] = {
    "efficientnet-lite0": (efficientnet.load, ""),
    "deepcluster": (deepcluster.load, "DeepCluster's published AlexNet, checkpoint.pth.tar"),
    "descriptor": (descriptor.load, ""),
    "encoder": (encoder.load, "the folder of a LORBMS run"),
}
"""Name -> what loads the extractor, and a description of its `--weights`, empty if it takes none."""


def load_extractor(name: str, weights: Path | None, device: torch.device) -> Extractor:
    """Load one of `EXTRACTORS`, `timm:MODEL` or `torchvision:MODEL`; UserError without it, or for unfit weights."""
    library, _, model = name.partition(":")
    if library in timm_torchvision.LIBRARIES and model:
        load: Load = partial(timm_torchvision.load, library, model)
        described = f"a state dict of {model}"
    elif name in EXTRACTORS:
        load, described = EXTRACTORS[name]
    else:
        known = ", ".join([*EXTRACTORS, *(f"{library}:MODEL" for library in timm_torchvision.LIBRARIES)])
        raise UserError(f"there are no features '{name}': choose one of {known}")
    if described and weights is None:
        raise UserError(f"features '{name}' need --weights: {described}")
    if weights is not None and not described:
        raise UserError(f"features '{name}' take no --weights, but {weights} was given: leave it out")
    if weights is not None and not weights.exists():
        raise UserError(f"--weights {weights} is missing: check the path")
    return load(weights, device)
