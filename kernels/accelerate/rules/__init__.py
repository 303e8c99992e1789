"""The rules that `accelerate` tries, in this order: joined pairs first, then single layers."""

from collections.abc import Callable, Iterator

from torch import nn

from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.dense_block import dense_blocks
from lorbms_fast.kernels.accelerate.rules.instance_norm import instance_norms
from lorbms_fast.kernels.accelerate.rules.max_pool import max_pools
from lorbms_fast.kernels.accelerate.rules.norm_act import norms_with_activations
from lorbms_fast.kernels.accelerate.rules.product_conv import products_with_weights
from lorbms_fast.kernels.accelerate.rules.spectral_norm import spectral_norms
from lorbms_fast.kernels.accelerate.rules.upsample_conv import upsampled_convolutions
from lorbms_fast.kernels.accelerate.rules.winograd_conv import convolutions

Rule = Callable[[nn.Module], Iterator[Finding]]
"""Swaps what it can in a model, and tells of each module it could mean what it did, or why not."""

RULES: list[Rule] = [
    norms_with_activations,
    instance_norms,
    upsampled_convolutions,
    convolutions,
    products_with_weights,
    max_pools,
    spectral_norms,
]
"""What is known to be at least as fast."""
MEMORY_RULES: list[Rule] = [dense_blocks]
"""What saves memory, and may take longer."""
