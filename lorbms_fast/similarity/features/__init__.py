"""Feature extractors by name. A new one is a module and a line in `EXTRACTORS`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from lorbms_fast.errors import UserError
from lorbms_fast.similarity.features import deepcluster, descriptor, efficientnet, encoder, timm_torchvision
from lorbms_fast.similarity.features.extractor import Extractor


@dataclass(frozen=True)
class Source:
    """Loader of an extractor, and a description of its `--weights`, empty if it takes none."""

    load: Callable[[Path | None, torch.device], Extractor]
    weights: str


EXTRACTORS = {
    "efficientnet-lite0": Source(efficientnet.load, ""),
    "deepcluster": Source(deepcluster.load, "DeepCluster's published AlexNet, checkpoint.pth.tar"),
    "descriptor": Source(descriptor.load, ""),
    "encoder": Source(encoder.load, "the folder of a LORBMS run"),
}


def load_extractor(name: str, weights: Path | None, device: torch.device) -> Extractor:
    """Load one of `EXTRACTORS`, `timm:MODEL` or `torchvision:MODEL`; UserError without it, or for unfit weights."""
    library, _, model = name.partition(":")
    if library in timm_torchvision.LIBRARIES and model:
        source = Source(partial(timm_torchvision.load, library, model), f"a state dict of {model}")
    elif name in EXTRACTORS:
        source = EXTRACTORS[name]
    else:
        known = ", ".join([*EXTRACTORS, *(f"{library}:MODEL" for library in timm_torchvision.LIBRARIES)])
        raise UserError(f"there are no features '{name}': choose one of {known}")
    if source.weights and weights is None:
        raise UserError(f"features '{name}' need --weights: {source.weights}")
    if weights is not None and not source.weights:
        raise UserError(f"features '{name}' take no --weights, but {weights} was given: leave it out")
    if weights is not None and not weights.exists():
        raise UserError(f"--weights {weights} is missing: check the path")
    return source.load(weights, device)
