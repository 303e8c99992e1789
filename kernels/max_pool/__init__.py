"""2x2 max pooling, which keeps a byte for its backward."""

import torch
from torch import Tensor, nn

from lorbms_fast.kernels._common.dispatch import TRITON, Impl, select_impl, transformed
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels.max_pool import fused, reference

if TRITON:
    from lorbms_fast.kernels.max_pool.triton import ops as triton_ops


@operation()
def max_pool2x2(x: Tensor, impl: Impl | None = None) -> Tensor:
    """Take the maximum of each 2x2 square; a byte remembers which it was, where torch's own pool takes eight.

    >>> x = torch.randn(2, 3, 8, 8)
    >>> torch.equal(max_pool2x2(x), F.max_pool2d(x, 2))
    True

    x is (N, C, H, W), the result (N, C, H // 2, W // 2): an odd last row or column is left out. `impl` names the
    form to run, None the one in force.
    """
    form = select_impl(impl, x)
    if form == "triton":
        return triton_ops.max_pool2x2(x)
    return (reference if form == "reference" else fused).max_pool2x2(x)


class MaxPool2x2(nn.MaxPool2d):
    """`torch.nn.MaxPool2d(2)`, by `max_pool2x2` where that is known to be at least as fast, else by torch's own.

    >>> x = torch.randn(2, 3, 8, 8)
    >>> torch.equal(MaxPool2x2()(x), nn.MaxPool2d(2)(x))
    True

    Known so are contiguous maps on the CPU, of float32 and float16, or of any dtype without gradients.
    """

    def __init__(self) -> None:
        super().__init__(2)

    @leaf
    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) or (C, H, W) -> the same with half the height and width."""
        exact = input.dtype in (torch.float32, torch.float16) or not (torch.is_grad_enabled() and input.requires_grad)
        quicker = input.dim() == 4 and input.is_cpu and input.is_floating_point() and exact and input.is_contiguous()
        if quicker and input.numel() and not transformed() and min(input.shape[2:]) >= 2:
            return max_pool2x2(input)
        return super().forward(input)
