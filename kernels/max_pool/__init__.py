"""2x2 max pooling, which keeps a byte for its backward."""

import torch
from torch import Tensor, nn

from lorbms_fast.kernels._common import torchscript
from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Impl, select_impl, transformed
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels._common.shapes import check_squares
from lorbms_fast.kernels.max_pool import fused, reference

if HAS_TRITON:
    from lorbms_fast.kernels.max_pool.triton import ops as triton_ops


@operation()
def max_pool2x2(x: Tensor, impl: Impl | None = None) -> Tensor:
    """Take the maximum of each 2x2 square; a byte remembers which it was, where torch's own pool takes eight.

    >>> x = torch.randn(2, 3, 8, 8)
    >>> torch.equal(max_pool2x2(x), F.max_pool2d(x, 2))
    True

    Args:
        x: (N, C, H, W), at least 2x2.
        impl: form to run; None takes the one in force.

    Returns:
        (N, C, H // 2, W // 2): an odd last row or column is left out.

    Raises:
        ValueError: x has other dimensions, or less than a square; or there is no such form.
    """
    check_squares(x)
    form = select_impl(impl, x)
    if form == "triton":
        return triton_ops.max_pool2x2(x)
    return (reference if form == "reference" else fused).max_pool2x2(x)


class MaxPool2x2(nn.MaxPool2d):
    """`torch.nn.MaxPool2d(2)`, by `max_pool2x2` where that is known to be at least as fast, else by torch's own.

    >>> x = torch.randn(2, 3, 8, 8)
    >>> torch.equal(MaxPool2x2()(x), nn.MaxPool2d(2)(x))
    True

    Known so are, on the CPU and with a C++ compiler, contiguous maps of float32 and bfloat16 that are 32 wide or wider,
    of 32,768 values or more (without gradients half of that), and, with gradients, large channels_last ones; other
    contiguous maps of 131,072 values or more in float32 and float16, without gradients of 65,536 or more in any dtype.
    """

    forward, _torchs_own = torchscript.forward, torchscript.torchs_own(nn.MaxPool2d)

    def __init__(self) -> None:
        super().__init__(2)

    @leaf
    def _recorded(self, input: Tensor) -> Tensor:
        """(N, C, H, W) or (C, H, W) -> the same with half the height and width."""
        if not torch.compiler.is_compiling() and input.dim() == 4 and not transformed() and _quicker(input):
            return max_pool2x2(input)
        return super().forward(input)


def _quicker(x: Tensor) -> bool:
    """Say whether ours is: nowhere but on the CPU."""
    if not x.is_cpu or min(x.shape[2:]) < 2:
        return False
    trains = torch.is_grad_enabled() and x.requires_grad
    if x.is_contiguous():
        if fused.by_loops(x):
            return x.numel() >= (fused.FEW_TRAINED if trains else fused.FEW)
        exact = x.dtype in (torch.float32, torch.float16) or not trains
        return x.is_floating_point() and exact and x.numel() >= (fused.SOME_TRAINED if trains else fused.SOME)
    large = x.dtype in (torch.float32, torch.bfloat16) and x.numel() >= fused.MANY and x.shape[1] >= 64
    return trains and large and fused.by_loops(x)
