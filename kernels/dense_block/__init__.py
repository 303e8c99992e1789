"""Dense blocks (Huang et al., 2017) whose layers share one activation without parameters.

A block's weights and biases are given as sequences, or packed, which the fast forms would do with them first. Several
calls with the same parameters share that work, and what autograd adds up, if all are given what `pack_layers` makes.
It holds copies: after parameters have changed, pack again.
"""

from lorbms_fast.kernels.dense_block.functional import dense_block, dense_block_activated, dense_block_maps
from lorbms_fast.kernels.dense_block.modules import DenseBlock
from lorbms_fast.kernels.dense_block.packed_layers import PackedLayers, pack_layers
from lorbms_fast.kernels.dense_block.reference import BlockActivation

__all__ = [
    "BlockActivation", "DenseBlock", "PackedLayers", "dense_block", "dense_block_activated", "dense_block_maps",
    "pack_layers",
]  # fmt: skip
