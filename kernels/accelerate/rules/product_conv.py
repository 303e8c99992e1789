"""Convolutions with large weights, as products with these as they lie where positions are few; all transposed ones.

Torch's transposed ones take long for the gradients of their biases.
"""

from collections.abc import Iterator

from torch import nn

from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.dense_block import computed_by_blocks
from lorbms_fast.kernels.accelerate.rules.devices import no_loops, not_the_cpu
from lorbms_fast.kernels.accelerate.swapping import become, kind_of
from lorbms_fast.kernels.product_conv import (
    ProductConv2d,
    ProductConv3d,
    ProductConvTranspose2d,
    ProductConvTranspose3d,
    why_no_product_conv,
)

_FASTER: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: ProductConv2d,
    nn.Conv3d: ProductConv3d,
    nn.ConvTranspose2d: ProductConvTranspose2d,
    nn.ConvTranspose3d: ProductConvTranspose3d,
}


def products_with_weights(model: nn.Module) -> Iterator[Finding]:
    """Swap those that no other rule has taken; of others nothing is told, as they are most.

    >>> model = nn.Sequential(nn.Conv2d(128, 256, 4, 2, 1), nn.Conv2d(256, 3, 4), nn.ConvTranspose2d(3, 3, 2, 2))
    >>> [finding.where for finding in products_with_weights(model)]
    ['0', '2']
    """
    why_not_here = not_the_cpu(model) or no_loops()
    of_blocks = computed_by_blocks(model)
    for name, module in model.named_modules():
        kind, before = kind_of(module), type(module).__name__
        if kind not in _FASTER or module in of_blocks or "forward" in module.__dict__:
            continue
        if why_no_product_conv(module) is not None:
            continue
        if why_not_here is None:
            become(module, _FASTER[kind])
        yield Finding(name, before if why_not_here else f"{before} -> {kind_of(module).__qualname__}", why_not_here)
