"""Drop-in instance norms that keep channels_last maps channels_last, alone or with an activation behind them.

PyTorch's own copy such maps to contiguous memory before the norm and leave them there (pytorch issue #72341).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.kernels._common.activation import IDENTITY, Activation, NormAct, activate
from lorbms_fast.kernels._common.dispatch import Impl, checked_impl, select_impl, transformed
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels._common.in_form import InForm
from lorbms_fast.kernels._common.own_tensors import own
from lorbms_fast.kernels.instance_norm import fused
from lorbms_fast.kernels.instance_norm.functional import instance_norm_act, instance_norm_relu, run


class _InstanceNorm(InForm, nn.modules.instancenorm._InstanceNorm):
    """An instance norm of torch's that runs another kernel where that is faster.

    Arguments, parameters, buffers, state dict and errors are torch's. Every form keeps the layout.
    """

    activation, negative_slope = IDENTITY
    __constants__ = [*nn.InstanceNorm2d.__constants__, "activation", "negative_slope"]  # noqa: RUF012

    def _activation(self) -> Activation:
        return IDENTITY

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

    @leaf
    def _recorded(self, input: Tensor) -> Tensor:
        if input.dim() == self._get_no_batch_dim() + 1 and input.shape[1] == self.num_features:
            return self._in_some_form(input)
        return nn.modules.instancenorm._InstanceNorm.forward(self, input)  # errors, warnings, and maps without a batch

    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            of_input, momentum = self.training or not self.track_running_stats, self.momentum
            momentum = 0.0 if momentum is None else momentum
            mean, var = self.running_mean, self.running_var
            y = F.instance_norm(input, mean, var, self.weight, self.bias, of_input, momentum, self.eps)
            return activate(y, self.activation, self.negative_slope)
        else:
            return self._in_some_form(input)

    def _in_some_form(self, input: Tensor) -> Tensor:
        tracks = self.track_running_stats or own(self, "running_mean") is not None  # which may be switched off later
        if tracks or not input.is_floating_point():
            return self._by_torch(input)
        form = select_impl(self.impl, input)
        if form == "reference" and transformed():
            return self._by_torch(input)
        weight, bias, shape = own(self, "weight"), own(self, "bias"), input.shape
        if form == "fused" and self.activation == "identity" and fused.is_torchs(input, weight):
            return fused.torchs_own(input, self.eps, weight, bias)
        if input.numel() <= shape[0] * shape[1]:  # one position, or none
            if not torch.compiler.is_compiling() and not input.numel():
                return self._by_torch(input)
            F._verify_spatial_size(shape)  # type: ignore[attr-defined]
        activation = self._activation()
        if form == "triton":  # whose kernels may fail
            return instance_norm_act(input, activation, None, self.eps, weight, bias, self.impl)
        return run(form, input, self.eps, weight, bias, activation)

    def _by_torch(self, input: Tensor) -> Tensor:
        y = super()._apply_instance_norm(input)
        if y.requires_grad and not transformed():
            y.register_hook(lambda g: g if g is None else g.contiguous())  # torch 2.13 misreads others on a CPU
        return self._activation()(y)


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


class InstanceNormAct(NormAct, _InstanceNorm):
    """Instance norm and the activation behind it in one, which keeps x for the backward; torch's two keep two tensors.

    >>> layer = InstanceNormAct(3, "leaky_relu", negative_slope=0.2, affine=True)
    >>> x = torch.randn(2, 3, 8, 8)
    >>> torch.testing.assert_close(layer(x), F.leaky_relu(F.instance_norm(x), 0.2))

    Takes maps of any number of dimensions, all with a batch; `InstanceNormAct2d` and `InstanceNormAct3d` take what
    torch's norms of their names take. Parameters, state dict and layouts are those of `InstanceNorm2d`; with
    `track_running_stats` torch's own norm runs.

    Args:
        num_features: C, maps of the input.
        activation: `relu`, `leaky_relu`, `silu`, `gelu`, `gelu_tanh` or `identity`; or a layer of torch's that is one.
        negative_slope: of `leaky_relu`, 0.01 unless given; no other takes one.
        impl: form to run; None takes the one in force.
        options: the others of `torch.nn.InstanceNorm2d`, by name: `eps`, `momentum`, `affine`, `track_running_stats`,
            `device`, `dtype`; and `bias`, where torch's own norm knows it.

    Raises:
        ValueError: there is no such activation, or form.
    """

    def _get_no_batch_dim(self) -> int:
        return 0  # so that TorchScript takes no input to be one without a batch

    def _with_a_batch(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if self.affine and input.shape[1] != self.num_features:
            raise ValueError(f"expected {self.num_features} channels to match num_features (got {input.shape[1]})")
        return self._apply_instance_norm(input)

    _recorded = leaf(_with_a_batch)


class InstanceNormAct2d(InstanceNormAct, InstanceNorm2d):
    """`InstanceNormAct` of (N, C, H, W) or (C, H, W).

    >>> layer = InstanceNormAct2d(3, "silu", affine=True)
    >>> layer(torch.randn(2, 3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """

    _check_input_dim, _get_no_batch_dim = InstanceNorm2d._check_input_dim, InstanceNorm2d._get_no_batch_dim
    _recorded = InstanceNorm2d._recorded


class InstanceNormAct3d(InstanceNormAct, InstanceNorm3d):
    """`InstanceNormAct` of (N, C, D, H, W) or (C, D, H, W).

    >>> layer = InstanceNormAct3d(3, "leaky_relu", affine=True)
    >>> layer(torch.randn(2, 3, 4, 4, 4)).shape
    torch.Size([2, 3, 4, 4, 4])
    """

    _check_input_dim, _get_no_batch_dim = InstanceNorm3d._check_input_dim, InstanceNorm3d._get_no_batch_dim
    _recorded = InstanceNorm3d._recorded


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

    def extra_repr(self) -> str:
        """`eps`."""
        return f"eps={self.eps}"

    @leaf
    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *positions) -> the same."""
        return instance_norm_relu(input, self.eps, self.impl)
