"""Image of a stack of maps: a 1x1 convolution and tanh, of a stack in two parts that are never joined."""

from torch import Tensor

from lorbms_fast.kernels._common.autocast import compute_dtype
from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Impl, select_impl
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels._common.shapes import check, check_floating, check_taps, misfit
from lorbms_fast.kernels.lorbms.output_conv import fused, reference

if HAS_TRITON:
    from lorbms_fast.kernels.lorbms.output_conv.triton import ops as triton_ops


@operation()
def output_conv2d(x: Tensor, new_maps: Tensor, weight: Tensor, bias: Tensor, impl: Impl | None = None) -> Tensor:
    """`tanh(conv2d(cat([x, new_maps], 1), weight, bias))`.

    >>> x, new_maps = torch.randn(2, 5, 8, 8), torch.randn(2, 3, 8, 8)
    >>> output_conv2d(x, new_maps, torch.randn(3, 5 + 3, 1, 1), torch.zeros(3)).shape
    torch.Size([2, 3, 8, 8])

    Maps are (N, C, H, W) and (N, D, H, W), the weight (O, C + D, 1, 1); the Triton form is made for few maps O.

    Returns (N, O, H, W); the Triton form's is channels_last, and it is differentiable once.
    Raises ValueError if a shape does not fit, or a dtype is of no floating-point numbers.
    """
    if x.dim() != 4 or new_maps.dim() != 4:
        raise misfit("x", x, f"(N, C, H, W), and new_maps {tuple(new_maps.shape)} alike")
    N, C, H, W = x.shape
    D = new_maps.shape[1]
    check("new_maps", new_maps, N, D, H, W)
    check_taps(weight, C + D, 1, 1)
    check("bias", bias, weight.shape[0])
    for name, tensor in (("x", x), ("new_maps", new_maps), ("weight", weight), ("bias", bias)):
        check_floating(name, tensor)
    form = select_impl(impl, x)
    if form == "triton":
        return triton_ops.output_conv(x, new_maps, weight, bias, compute_dtype(x))
    return (reference if form == "reference" else fused).output_conv2d(x, new_maps, weight, bias)
