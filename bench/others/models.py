"""The models: how to make each, small for tests, and for measuring so large that a CPU trains it in about a second."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.others import with_torchvision, written_here

LAYOUTS = ("contiguous", "channels_last")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""What autocast computes in, by name."""


@dataclass(frozen=True)
class Case:
    """A model and what goes into it."""

    small: Callable[[], nn.Module]
    small_shape: tuple[int, ...]
    """(N, C, H, W) or (N, C, D, H, W)."""
    measured: Callable[[], nn.Module]
    measured_shape: tuple[int, ...]


def nnunet(kind: str, dimensions: int, widths: tuple[int, ...]) -> nn.Module:
    """Make an nnU-Net of dynamic-network-architectures as its default plans do; each stage but the first halves."""
    architectures = importlib.import_module("dynamic_network_architectures.architectures.unet")
    conv, norm = (nn.Conv2d, nn.InstanceNorm2d) if dimensions == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    stages = len(widths)
    blocks = {"n_conv_per_stage": 2} if kind == "PlainConvUNet" else {"n_blocks_per_stage": (1, 3, 4, 6, 6, 6)[:stages]}
    return getattr(architectures, kind)(
        input_channels=1, n_stages=stages, features_per_stage=widths, conv_op=conv, kernel_sizes=3,
        strides=(1, *[2] * (stages - 1)), num_classes=3,
        n_conv_per_stage_decoder=2 if kind == "PlainConvUNet" else 1, conv_bias=True, norm_op=norm,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        deep_supervision=True, **blocks,
    )  # fmt: skip


def dynunet(dimensions: int, filters: tuple[int, ...]) -> nn.Module:
    """Make MONAI's DynUNet, with instance norms and deep supervision, as its tutorials do."""
    nets = importlib.import_module("monai.networks.nets")
    strides = [1, *[2] * (len(filters) - 1)]
    return nets.DynUNet(
        dimensions, 1, 3, [3] * len(filters), strides, strides[1:], filters=filters, deep_supervision=True,
        res_block=True,
    )  # fmt: skip


def basicunet(dimensions: int, features: tuple[int, ...]) -> nn.Module:
    """Make MONAI's BasicUNet with its default instance norms."""
    return importlib.import_module("monai.networks.nets").BasicUNet(dimensions, 1, 3, features)


def densenet121() -> nn.Module:
    return with_torchvision.densenet().densenet121(num_classes=10)


CASES = {
    "nnU-Net PlainConvUNet 2D": Case(
        lambda: nnunet("PlainConvUNet", 2, (4, 8, 8)), (2, 1, 16, 16),
        lambda: nnunet("PlainConvUNet", 2, (32, 64, 128, 256)), (2, 1, 128, 128),
    ),
    "nnU-Net PlainConvUNet 3D": Case(
        lambda: nnunet("PlainConvUNet", 3, (4, 8)), (1, 1, 8, 8, 8),
        lambda: nnunet("PlainConvUNet", 3, (16, 32, 64)), (1, 1, 32, 48, 48),
    ),
    "nnU-Net ResidualEncoderUNet 2D": Case(
        lambda: nnunet("ResidualEncoderUNet", 2, (4, 8, 8)), (2, 1, 16, 16),
        lambda: nnunet("ResidualEncoderUNet", 2, (32, 64, 128)), (2, 1, 96, 96),
    ),
    "nnU-Net ResidualEncoderUNet 3D": Case(
        lambda: nnunet("ResidualEncoderUNet", 3, (4, 8)), (1, 1, 8, 8, 8),
        lambda: nnunet("ResidualEncoderUNet", 3, (16, 32, 64)), (1, 1, 32, 32, 32),
    ),
    "MONAI DynUNet 3D": Case(
        lambda: dynunet(3, (4, 4, 8)), (1, 1, 8, 8, 8),
        lambda: dynunet(3, (16, 32, 64)), (1, 1, 32, 48, 48),
    ),
    "MONAI BasicUNet 3D": Case(
        lambda: basicunet(3, (4, 4, 4, 4, 8, 4)), (1, 1, 32, 32, 32),
        lambda: basicunet(3, (16, 16, 32, 64, 128, 16)), (1, 1, 48, 48, 48),
    ),
    "CycleGAN generator": Case(
        lambda: written_here.cyclegan_generator(4, 2), (2, 3, 16, 16),
        lambda: written_here.cyclegan_generator(32, 9), (1, 3, 192, 192),
    ),
    "pix2pix U-Net and PatchGAN": Case(
        lambda: written_here.Pix2Pix(4, 5), (1, 3, 64, 64),
        lambda: written_here.Pix2Pix(32, 8), (1, 3, 256, 256),
    ),
    "fast-neural-style TransformerNet": Case(
        lambda: written_here.TransformerNet(4, 2), (2, 3, 16, 16),
        lambda: written_here.TransformerNet(), (1, 3, 256, 256),
    ),
    "FC-DenseNet103": Case(
        lambda: written_here.FCDenseNet(3, 4, (1, 2, 2), 2, 6), (2, 3, 16, 16),
        written_here.FCDenseNet, (1, 3, 128, 128),
    ),
    "torchvision densenet121": Case(densenet121, (2, 3, 64, 64), densenet121, (4, 3, 224, 224)),
}  # fmt: skip
"""By what a table calls them."""


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    found = model(x)
    return [found] if isinstance(found, Tensor) else list(found)


def loss(model: nn.Module, x: Tensor) -> Tensor:
    """A scalar of all that comes out, whose gradient is another at each of its elements."""
    exact = torch.promote_types(x.dtype, torch.float32)
    return torch.stack([y.to(exact).sin().square().mean() for y in outputs(model, x)]).sum()


def arranged(model: nn.Module, x: Tensor, layout: str) -> tuple[nn.Module, Tensor]:
    """Lay a model's parameters and its input out as one of `LAYOUTS`."""
    if layout == "contiguous":
        return model, x
    form = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return model.to(memory_format=form), x.to(memory_format=form)  # type: ignore[call-overload]
