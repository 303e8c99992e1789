"""What makes an image of a stack of maps: a 1x1 convolution and tanh, of a stack in two parts that are never joined."""

from torch import Tensor

from lorbms_fast.kernels.autocast import product_dtype
from lorbms_fast.kernels.dispatch import TRITON, Impl, resolve
from lorbms_fast.kernels.output_conv import definition, fused

if TRITON:
    from lorbms_fast.kernels.output_conv import triton


def output_conv2d(x: Tensor, new_maps: Tensor, weight: Tensor, bias: Tensor, impl: Impl | None = None) -> Tensor:
    """`tanh(conv2d(cat([x, new_maps], 1), weight, bias))`.

    Args:
        x: (N, C, H, W).
        new_maps: (N, D, H, W).
        weight: (O, C + D, 1, 1); the Triton form is made for few maps O.
        bias: (O,).
        impl: form to run; None takes the one in force.

    Returns:
        (N, O, H, W); the Triton form's is channels_last, and it is differentiable once.
    """
    form = resolve(impl, x)
    if form == "triton":
        result: Tensor = triton.output_conv(x, new_maps, weight, bias, product_dtype(x))
        return result
    return (definition if form == "reference" else fused).output_conv2d(x, new_maps, weight, bias)
