"""The encoder on lorbms_fast.kernels."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast import reference
from lorbms_fast.kernels import PackedLayers, coord_conv2d, pack_layers
from lorbms_fast.kernels._common.autocast import compute_dtype
from lorbms_fast.kernels._common.foreach_cast import foreach_cast
from lorbms_fast.kernels.lorbms import dense_block_pooled
from lorbms_fast.reference.layers import INSTANCE_NORM_EPS

Conv = tuple[Tensor, Tensor]
"""Weight and bias."""


class EncoderWeights(NamedTuple):
    """Packed weights of the encoder."""

    first: Conv
    blocks: list[PackedLayers]
    downs: list[Conv]
    last: Conv


class Encoder(reference.Encoder):
    """The encoder of Table 3.1 in fewer operations.

    Every map of a dense block is normalized and rectified once, and the transition down reads what the block has
    activated already.
    """

    def packed(self) -> EncoderWeights:
        """Pack the parameters for several passes with the same ones: see `models.passes`."""
        numbers = range(1, self.blocks + 1)
        W_first, b_first, W_last, b_last = foreach_cast(
            [*_conv(self.first), *_conv(self.last)], compute_dtype(self.first.weight)
        )
        return EncoderWeights(
            (W_first, b_first),
            pack_layers([layers_of(self.get_submodule(f"block{b}")) for b in numbers]),
            [_conv(self.get_submodule(f"down{b}")) for b in numbers],
            (W_last, b_last),
        )

    def forward(self, images: Tensor, packed: EncoderWeights | None = None) -> Tensor:
        """Encode (N, 3, S, S) images in [-1, 1] as (N, (S/32)^2, chunk); for S = 64 chunk i is quadrant i."""
        first, blocks, downs, last = self.packed() if packed is None else packed
        x = coord_conv2d(images, *first)
        for block, down in zip(blocks, downs, strict=True):
            x = dense_block_pooled(x, block, *down, activation="instance_norm_relu", eps=INSTANCE_NORM_EPS)
        return F.conv2d(x, *last).flatten(2).transpose(1, 2)


def layers_of(block: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """List weights and biases of a dense block's layers, in order."""
    layers = [layer for layer in block.children() if isinstance(layer, nn.Conv2d)]
    return [layer.weight for layer in layers], [layer.bias for layer in layers if layer.bias is not None]


def _conv(layer: nn.Module) -> Conv:
    weight, bias = layer.parameters()
    return weight, bias
