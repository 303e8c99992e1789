"""A 1x1 convolution followed by 2x2 max pooling: the transition down of a DenseNet, without the maps in between."""

import torch
from torch import Tensor

from lorbms_fast.kernels.dispatch import TRITON, Impl, resolve
from lorbms_fast.kernels.pooled_conv import definition

if TRITON:
    from lorbms_fast.kernels.pooled_conv import triton


def pooled_conv2d(x: Tensor, weight: Tensor, bias: Tensor, impl: Impl | None = None) -> Tensor:
    """`max_pool2d(conv2d(x, weight, bias), 2)`.

    Args:
        x: (N, C, H, W), at least 2x2.
        weight: (O, C, 1, 1).
        bias: (O,).
        impl: form to run; None takes the one in force. The torch form is the definition.

    Returns:
        (N, O, H // 2, W // 2); the Triton form's is channels_last, and differentiable once.
    """
    if resolve(impl, x) == "triton":
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        return triton.pooled_conv(x, weight, bias, dtype)[0]
    return definition.pooled_conv2d(x, weight, bias)
