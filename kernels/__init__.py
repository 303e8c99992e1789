"""Layers that compute what their plain definitions compute, with less work. Import them into any model.

Every folder holds one operation: `reference.py` defines it, the others compute it faster. Functions and layers take
`impl="auto" | "reference" | "fused" | "triton"`; `use_impl` sets it for a block of code.
"""

from lorbms_fast.kernels._common.dispatch import Impl, use_impl
from lorbms_fast.kernels._common.grad_fanout import fan_out
from lorbms_fast.kernels.accelerate import accelerate, restore
from lorbms_fast.kernels.batch_norm import BatchNormAct, BatchNormAct2d, BatchNormAct3d, batch_norm_act
from lorbms_fast.kernels.coord_conv import CoordConv2d, coord_conv2d
from lorbms_fast.kernels.dense_block import (
    DenseBlock,
    PackedLayers,
    dense_block,
    dense_block_activated,
    dense_block_maps,
    pack_layers,
)
from lorbms_fast.kernels.densenet_block import DenseNetBlock
from lorbms_fast.kernels.grouped_batch_norm import GroupedBatchNorm2d, grouped_batch_norm, relu_grouped_batch_norm
from lorbms_fast.kernels.instance_norm import (
    InstanceNorm2d,
    InstanceNorm3d,
    InstanceNormAct,
    InstanceNormAct2d,
    InstanceNormAct3d,
    InstanceNormReLU,
    instance_norm,
    instance_norm_act,
    instance_norm_relu,
)
from lorbms_fast.kernels.max_pool import MaxPool2x2, max_pool2x2
from lorbms_fast.kernels.passes import Pass, passes
from lorbms_fast.kernels.product_conv import (
    ProductConv2d,
    ProductConv3d,
    ProductConvTranspose2d,
    ProductConvTranspose3d,
    product_conv,
    product_conv_transposed,
)
from lorbms_fast.kernels.resize_conv import FoldedTaps, ResizeConv2d, fold_taps, resize_conv
from lorbms_fast.kernels.spectral_norm import (
    SpectralConv2d,
    SpectralNorm,
    advance_all_u,
    advance_u,
    spectral_norm,
    spectral_norm_all,
    spectral_norm_through,
)
from lorbms_fast.kernels.upsample_conv import UpsampleConv2d, upsample_conv
from lorbms_fast.kernels.winograd_conv import WinogradConv2d, WinogradConv3d, winograd_conv

__all__ = [
    "BatchNormAct", "BatchNormAct2d", "BatchNormAct3d", "CoordConv2d", "DenseBlock", "DenseNetBlock", "FoldedTaps",
    "GroupedBatchNorm2d", "Impl", "InstanceNorm2d", "InstanceNorm3d", "InstanceNormAct", "InstanceNormAct2d",
    "InstanceNormAct3d", "InstanceNormReLU", "MaxPool2x2", "PackedLayers", "Pass", "ProductConv2d", "ProductConv3d",
    "ProductConvTranspose2d", "ProductConvTranspose3d", "ResizeConv2d", "SpectralConv2d", "SpectralNorm",
    "UpsampleConv2d", "WinogradConv2d", "WinogradConv3d", "accelerate", "advance_all_u", "advance_u", "batch_norm_act",
    "coord_conv2d", "dense_block", "dense_block_activated", "dense_block_maps", "fan_out", "fold_taps",
    "grouped_batch_norm", "instance_norm", "instance_norm_act", "instance_norm_relu", "max_pool2x2", "pack_layers",
    "passes", "product_conv", "product_conv_transposed", "relu_grouped_batch_norm", "resize_conv", "restore",
    "spectral_norm", "spectral_norm_all", "spectral_norm_through", "upsample_conv", "use_impl", "winograd_conv",
]  # fmt: skip
