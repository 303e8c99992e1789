"""The block of torchvision's DenseNet (Huang et al., 2017): batch norms, ReLUs, 1x1 and 3x3 convolutions.

Its norms have parameters of each layer's own, so that an activation is not the same for every layer that reads it as in
`lorbms_fast.kernels.dense_block`; the statistics that they normalize with are.
"""

from lorbms_fast.kernels.densenet_block.modules import DenseNetBlock, DenseNetLayer, why_no_densenet_block
from lorbms_fast.kernels.densenet_block.stacked import Plan, StackedBlock, stacked_kind, why_not_stacked

__all__ = [
    "DenseNetBlock", "DenseNetLayer", "Plan", "StackedBlock", "stacked_kind", "why_no_densenet_block",
    "why_not_stacked",
]  # fmt: skip
