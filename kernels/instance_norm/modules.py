"""Drop-in instance norms that keep channels_last maps channels_last.

PyTorch's own copy such maps to contiguous memory before the norm and leave them there (pytorch issue #72341).
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from lorbms_fast.kernels._common.dispatch import TRITON, Impl, select_impl
from lorbms_fast.kernels.instance_norm import fused, reference

if TRITON:
    from lorbms_fast.kernels.instance_norm.triton import ops as triton_ops


class _KeepingLayout(_InstanceNorm):
    """An instance norm of torch's with another forward; same arguments, parameters, buffers and state dict."""

    impl: Impl | None = None
    """Form to run; None takes the one in force. Every form keeps the layout."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *positions) or (C, *positions) -> the same, in x's memory layout. Differentiable once."""
        if self.track_running_stats:
            return super().forward(x)
        self._check_input_dim(x)
        channel = x.dim() - self._get_no_batch_dim()
        if x.shape[channel] != self.num_features and self.affine:
            raise ValueError(f"expected {self.num_features} channels, got {x.shape[channel]}")
        if channel == 0:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        bias = torch.zeros_like(self.weight) if self.affine and self.bias is None else self.bias
        form = select_impl(self.impl, x)
        if form == "triton":
            return triton_ops.instance_norm(x, self.eps, self.weight, bias)
        if form == "fused":
            return fused.instance_norm(x, self.eps, self.weight, bias)
        y = reference.instance_norm(x, self.eps)
        if not self.affine:
            return y
        per_channel = (-1,) + (1,) * (x.dim() - 2)
        return y * self.weight.view(per_channel) + bias.view(per_channel)


class InstanceNorm2d(_KeepingLayout, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` that keeps channels_last; with `track_running_stats` it runs torch's own."""


class InstanceNorm3d(_KeepingLayout, nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` that keeps channels_last_3d; with `track_running_stats` it runs torch's own."""
