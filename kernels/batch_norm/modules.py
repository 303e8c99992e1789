"""Drop-in batch norms with an activation behind them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.kernels._common.activation import NormAct, activate
from lorbms_fast.kernels._common.dispatch import select_impl, transformed
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels._common.own_tensors import own
from lorbms_fast.kernels._common.shapes import check_number
from lorbms_fast.kernels.batch_norm import fused, reference


class BatchNormAct(NormAct, nn.modules.batchnorm._BatchNorm):
    """Batch norm and the activation behind it in one, which keeps x for the backward; torch's two keep two tensors.

    >>> layer = BatchNormAct(3, "leaky_relu", negative_slope=0.2)
    >>> x = torch.randn(2, 3, 8, 8)
    >>> torch.testing.assert_close(layer(x), F.leaky_relu(F.batch_norm(x, None, None, training=True), 0.2))

    Takes maps of any number of dimensions; `BatchNormAct2d` and `BatchNormAct3d` take what torch's norms of their names
    take. Parameters, buffers, state dict, running statistics and layouts are those of torch's batch norms; with running
    statistics, in evaluation, torch's own norm runs. `SyncBatchNorm.convert_sync_batchnorm` takes it for a norm alone,
    and drops the activation.

    Args:
        num_features: C, maps of the input.
        activation: `relu`, `leaky_relu`, `silu`, `gelu`, `gelu_tanh` or `identity`; or a layer of torch's that is one.
        negative_slope: of `leaky_relu`, 0.01 unless given; no other takes one.
        impl: form to run; None takes the one in force.
        options: the others of `torch.nn.BatchNorm2d`, by name: `eps`, `momentum` (None averages all batches), `affine`,
            `track_running_stats`, `device`, `dtype`; and `bias`, where torch's own norm knows it.

    Raises:
        ValueError: there is no such activation, or form.
    """

    inplace = False
    """The activation may keep its result, which then nobody may change before the backward."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *positions) -> the same, in its memory layout."""
        # TorchScript reads the first branch alone, and knows torch's kernel alone.
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._check_input_dim(input)
            momentum, of_batch = self._counted(self.num_batches_tracked), self.training or self.running_mean is None
            tracked = not self.training or self.track_running_stats
            mean, var = self.running_mean if tracked else None, self.running_var if tracked else None
            y = F.batch_norm(input, mean, var, self.weight, self.bias, of_batch, momentum, self.eps)
            return activate(y, self.activation, self.negative_slope)
        else:
            return self._recorded(input)

    @leaf
    def _recorded(self, input: Tensor) -> Tensor:
        activation, training = self._activation(), self.training
        # First, as a small map takes as long as the questions below.
        small = training and self.eps > 0 and fused.is_torchs(input, self.activation)
        if small and select_impl(self.impl, input) == "fused":
            self._check_input_dim(input)
            return fused.activated(fused.torchs_own(input, *self._read()), activation, self.inplace)
        of_torch = torch.compiler.is_compiling() or transformed() or not input.numel() or self.eps <= 0
        if of_torch or not (training or (self.running_mean is None and self.running_var is None)):
            y = super().forward(input)
            return activation(y) if of_torch else fused.activated(y, activation, self.inplace)
        self._check_input_dim(input)
        if select_impl(self.impl, input) == "reference":
            return reference.batch_norm(input, *self._read(), activation)
        return fused.batch_norm(input, *self._read(), activation, self.inplace)

    def _read(self) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, float, float]:
        """Parameters, running statistics that move, the share of a batch in them, which is counted, and eps."""
        check_number("eps", self.eps)
        momentum, mean, var = self._counted(own(self, "num_batches_tracked")), None, None
        if self.training and self.track_running_stats:
            mean, var = own(self, "running_mean"), own(self, "running_var")
        return own(self, "weight"), own(self, "bias"), mean, var, momentum, self.eps

    def _counted(self, batches: Tensor | None) -> float:
        """Count a batch; its share in the running statistics."""
        momentum = 0.0 if self.momentum is None else self.momentum
        if batches is not None and self.training and self.track_running_stats:
            batches.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(batches)
        return momentum


class BatchNormAct2d(BatchNormAct, nn.BatchNorm2d):
    """`BatchNormAct` of (N, C, H, W).

    >>> layer = BatchNormAct2d(3, "silu")
    >>> layer(torch.randn(2, 3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """

    _check_input_dim = nn.BatchNorm2d._check_input_dim


class BatchNormAct3d(BatchNormAct, nn.BatchNorm3d):
    """`BatchNormAct` of (N, C, D, H, W).

    >>> layer = BatchNormAct3d(3, "leaky_relu")
    >>> layer(torch.randn(2, 3, 4, 4, 4)).shape
    torch.Size([2, 3, 4, 4, 4])
    """

    _check_input_dim = nn.BatchNorm3d._check_input_dim
