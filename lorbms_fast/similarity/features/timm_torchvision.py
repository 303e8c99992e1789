"""Any model of timm or torchvision, with a weights file."""

import importlib
from pathlib import Path

import torch
from torch import Tensor, nn

from lorbms_fast.errors import UserError
from lorbms_fast.similarity.features.extractor import Extractor, imagenet_normalized, of_quadrants
from lorbms_fast.weights import fill, read_checkpoint

LIBRARIES = ("timm", "torchvision")


def load(library: str, model: str, weights: Path | None, device: torch.device) -> Extractor:
    """Load the penultimate features of a model (timm), or its outputs (torchvision)."""
    assert weights is not None  # `load_extractor` has seen to it
    network = _network(library, model)
    state = read_checkpoint(weights)
    fill(network, state.get("state_dict", state) if isinstance(state, dict) else state, weights)
    network = network.to(device).eval()

    def features(x: Tensor) -> Tensor:
        result: Tensor = network(imagenet_normalized(x))
        return result.flatten(1)

    return of_quadrants(features, device)


def _network(library: str, model: str) -> nn.Module:
    try:
        if library == "timm":
            timm = importlib.import_module("timm")
            network: nn.Module = timm.create_model(model, pretrained=False, num_classes=0)
        else:
            network = importlib.import_module("torchvision.models").get_model(model, weights=None)
    except ImportError as error:
        raise UserError(f"features '{library}:{model}' need {library}: pip install {library}") from error
    except (RuntimeError, ValueError) as error:
        if "torchvision::" in str(error):  # timm imports torchvision too
            raise UserError(
                f"features '{library}:{model}': the installed torchvision is built for another torch than "
                f"{torch.__version__}; reinstall the two together: pip install --force-reinstall torch torchvision"
            ) from error
        raise UserError(f"{library} has no model '{model}': {error}") from error
    return network
