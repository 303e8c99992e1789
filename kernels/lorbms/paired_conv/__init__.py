"""Convolution of one image stacked with each of several others."""

from torch import Tensor

from lorbms_fast.kernels._common.dispatch import Impl, select_impl
from lorbms_fast.kernels._common.shapes import misfit
from lorbms_fast.kernels.lorbms.paired_conv import fused, reference


def paired_conv2d(
    shared: Tensor, each: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, impl: Impl | None = None
) -> Tensor:
    """Stack `shared` before each of several images on channels and convolve, without padding.

    >>> I_mix, I_q = torch.randn(2, 3, 8, 8), torch.randn(4 * 2, 3, 8, 8)
    >>> paired_conv2d(I_mix, I_q, torch.randn(5, 3 + 3, 3, 3)).shape
    torch.Size([8, 5, 6, 6])

    `shared` (N, C, H, W) is paired with each of G batches, (G * N, D, H, W); the weight is (O, C + D, k, k), the result
    (G * N, O, H', W'). Raises ValueError if a shape does not fit.
    """
    if shared.dim() != 4:
        raise misfit("shared", shared, "(N, C, H, W)")
    N, C, H, W = shared.shape
    if each.dim() != 4 or each.shape[2:] != (H, W) or not N or each.shape[0] % N:
        raise misfit("each", each, f"(G * {N}, D, {H}, {W})")
    if weight.dim() != 4 or weight.shape[1] != C + each.shape[1]:
        raise misfit("weight", weight, f"(O, {C + each.shape[1]}, k, k)")
    return (reference if select_impl(impl, shared) == "reference" else fused).paired_conv2d(
        shared, each, weight, bias, stride
    )
