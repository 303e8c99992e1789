"""A 1x1 convolution followed by 2x2 max pooling: the transition down of a DenseNet, without the maps in between."""

from torch import Tensor

from lorbms_fast.kernels._common.autocast import compute_dtype
from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Impl, select_impl
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels._common.shapes import check, check_device, check_floating, check_squares, check_taps
from lorbms_fast.kernels.lorbms.pooled_conv import fused, reference

if HAS_TRITON:
    from lorbms_fast.kernels.lorbms.pooled_conv.triton import ops as triton_ops


@operation()
def pooled_conv2d(x: Tensor, weight: Tensor, bias: Tensor, impl: Impl | None = None) -> Tensor:
    """`max_pool2d(conv2d(x, weight, bias), 2)`.

    >>> x = torch.randn(2, 3, 8, 8)
    >>> weight, bias = torch.randn(4, 3, 1, 1), torch.randn(4)
    >>> torch.testing.assert_close(pooled_conv2d(x, weight, bias), F.max_pool2d(F.conv2d(x, weight, bias), 2))

    From x (N, C, H, W), at least 2x2, weight (O, C, 1, 1) and bias (O,) to (N, O, H // 2, W // 2), which the Triton
    form makes channels_last. The fast forms are differentiable once.
    Raises ValueError if a shape, dtype or device does not fit.
    """
    check_pooled(x, weight, bias)
    form = select_impl(impl, x)
    if form == "triton":
        return triton_ops.pooled_conv(x, weight, bias, compute_dtype(x))[0]
    return (reference if form == "reference" else fused).pooled_conv2d(x, weight, bias)


def check_pooled(x: Tensor, weight: Tensor, bias: Tensor, more: int = 0) -> None:
    """Raise ValueError unless x can be pooled, and weight and bias are a convolution's of its maps and `more`."""
    check_squares(x)
    check_taps(weight, x.shape[1] + more, 1, 1)
    check("bias", bias, weight.shape[0])
    for name, tensor in (("weight", weight), ("bias", bias)):
        check_floating(name, tensor)
        check_device(name, tensor, x)
