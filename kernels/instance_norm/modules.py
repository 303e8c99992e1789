"""Drop-in instance norms that keep channels_last maps channels_last.

PyTorch's own copy such maps to contiguous memory before the norm and leave them there (pytorch issue #72341).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.kernels._common.dispatch import Impl, checked_impl, select_impl, transformed
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels.instance_norm.functional import instance_norm_relu, run


class _InstanceNorm(nn.modules.instancenorm._InstanceNorm):
    """An instance norm of torch's that runs another kernel where that is faster.

    Arguments, parameters, buffers, state dict and errors are torch's.
    """

    impl: Impl | None = None
    """Form to run; None takes the one in force. Every form keeps the layout."""

    def __init__(self, *args: Any, impl: Impl | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.impl = checked_impl(impl)

    __jit_ignored_attributes__ = ["impl"]  # noqa: RUF012

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *positions) or (C, *positions) -> the same, in its memory layout."""
        # TorchScript reads the first branch alone, and knows torch's kernel alone.
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._check_input_dim(input)
            if input.dim() == self._get_no_batch_dim():
                return self._handle_no_batch_input(input)
            return self._apply_instance_norm(input)
        else:
            return self._recorded(input)

    _recorded = leaf(nn.modules.instancenorm._InstanceNorm.forward)

    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            own, momentum = self.training or not self.track_running_stats, self.momentum
            momentum = 0.0 if momentum is None else momentum
            mean, var = self.running_mean, self.running_var
            return F.instance_norm(input, mean, var, self.weight, self.bias, own, momentum, self.eps)
        else:
            return self._in_some_form(input)

    def _in_some_form(self, input: Tensor) -> Tensor:
        empty = not torch.compiler.is_compiling() and not input.numel()
        if self.track_running_stats or transformed() or empty or not input.is_floating_point():
            return super()._apply_instance_norm(input)
        F._verify_spatial_size(input.size())  # type: ignore[attr-defined]
        return run(select_impl(self.impl, input), input, self.eps, self.weight, self.bias)


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` that keeps channels_last maps so; with `track_running_stats` it runs torch's own.

    >>> norm = InstanceNorm2d(3, affine=True)
    >>> x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    >>> norm(x).is_contiguous(memory_format=torch.channels_last)
    True
    """


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` that keeps channels_last_3d maps so; with `track_running_stats` it runs torch's own.

    >>> norm = InstanceNorm3d(3)
    >>> x = torch.randn(2, 3, 4, 4, 4).to(memory_format=torch.channels_last_3d)
    >>> norm(x).is_contiguous(memory_format=torch.channels_last_3d)
    True
    """


class InstanceNormReLU(nn.Module):
    """Instance norm without parameters and ReLU, as a layer: (N, C, *positions) -> the same shape.

    >>> InstanceNormReLU()(torch.randn(2, 3, 8, 8)).min()
    tensor(0.)

    Args:
        eps: added to the variance.
        impl: form to run; None takes the one in force.
    """

    def __init__(self, eps: float = 1e-5, impl: Impl | None = None) -> None:
        super().__init__()
        self.eps, self.impl = eps, checked_impl(impl)

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *positions) -> the same."""
        return instance_norm_relu(x, self.eps, self.impl)
