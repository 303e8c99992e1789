"""The layers that torch does not have, made of those that it has."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.kernels.grouped_batch_norm.synchronized import Gather, synchronized_batch_norm
from lorbms_fast.kernels.resize_conv.reference import resize_conv
from lorbms_fast.kernels.spectral_norm.reference import power_step, spectral_norm

INSTANCE_NORM_EPS = 1e-9
"""Number that the author's instance norms add to the variance."""

SpectralNorm = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Function `(weight, u) -> (weight / sigma, sigma)`; it decides whether u' and v are constants in the backward."""


def instance_norm_relu(x: Tensor) -> Tensor:
    """Activate the encoder's maps: `relu((x - mean) / sqrt(var + 1e-9))`, mean and variance over a map's positions."""
    return torch.relu(F.instance_norm(x, eps=INSTANCE_NORM_EPS))


class DenseBlock(nn.Module):
    """A dense block: each layer reads all maps before it and appends its own (thesis, Figure 3.3).

    Args:
        in_channels: maps of the block's input.
        layers: how many layers.
        growth: maps each layer appends.
        activation: applied to what a layer reads.
        conv: makes a layer's convolution from (in_channels, out_channels, kernel_size).
    """

    def __init__(
        self,
        in_channels: int,
        layers: int,
        growth: int,
        activation: Callable[[Tensor], Tensor],
        conv: Callable[[int, int, int], nn.Module],
    ) -> None:
        super().__init__()
        self.activation = activation
        for i in range(layers):
            self.add_module(f"layer{i}", conv(in_channels + i * growth, growth, 3))

    def forward(self, stack: Tensor) -> Tensor:
        """Compute (N, in_channels + layers * growth, H, W) from (N, in_channels, H, W) maps."""
        for layer in self.children():
            stack = torch.cat([stack, layer(self.activation(stack))], dim=1)
        return stack


class SpectralWeight(nn.Module):
    """A weight that is used divided by its largest singular value; `u` is the persistent vector of its estimate."""

    def __init__(self, shape: tuple[int, ...], normalize: SpectralNorm = spectral_norm) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.u: Tensor
        self.register_buffer("u", torch.empty(1, shape[0]))
        self.normalize = normalize

    def normalized(self) -> Tensor:
        """Compute W / sigma."""
        return self.normalize(self.weight, self.u)[0]

    @torch.no_grad()
    def advance_u(self) -> None:
        """Take one step of the power iteration: u becomes u'."""
        self.u.copy_(power_step(self.weight, self.u)[0])


class SpectralConv2d(SpectralWeight):
    """A convolution with a spectrally normalized weight; SAME padding, also for stride 2 on even sizes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        normalize: SpectralNorm = spectral_norm,
    ) -> None:
        super().__init__((out_channels, in_channels, kernel_size, kernel_size), normalize)
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.stride = stride
        self.padding = (kernel_size - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Compute (N, out_channels, H / stride, W / stride) from (N, in_channels, H, W) maps."""
        return F.conv2d(x, self.normalized(), self.bias, self.stride, self.padding)


class TransitionUp(SpectralWeight):
    """A resize convolution that doubles height and width, with a spectrally normalized weight and no bias."""

    def __init__(self, in_channels: int, out_channels: int, normalize: SpectralNorm = spectral_norm) -> None:
        super().__init__((out_channels, in_channels, 3, 3), normalize)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (N, out_channels, 2 H, 2 W) from (N, in_channels, H, W) maps."""
        return resize_conv(x, self.normalized())


class BatchNorm(nn.Module):
    """Batch norm by the batch's own statistics, then scale and shift; running averages serve evaluation.

    The averages follow only while the layer itself is trained: the generator's updates, which also run the
    classifier, leave them alone. Where `gather` is set, the batch is that of all processes together.
    """

    gather: Gather | None = None

    def __init__(self, channels: int, eps: float = 1e-5, decay: float = 0.99) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.empty(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.eps = eps
        self.decay = decay

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, scale and shift (N, C, H, W) maps."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.gamma, self.beta, eps=self.eps)
        if self.gather is not None:
            y, means, variances = synchronized_batch_norm(x, self.gamma, self.beta, 1, self.eps, self.gather)
        else:
            mean, var = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)
            y = F.batch_norm(x, mean, var, self.gamma, self.beta, training=True, momentum=1.0, eps=self.eps)
            n = x.numel() // x.shape[1]  # torch reports the unbiased variance, the thesis's averages are of the biased
            means, variances = mean[None], var[None] * ((n - 1) / n)
        follow([self], [(means, variances)])
        return y


@torch.no_grad()
def follow(layers: Sequence[BatchNorm], statistics: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Move running averages towards the statistics of one batch after the other, if their layers are being trained.

    Args:
        layers: all with one decay.
        statistics: means and variances that each layer has found, both (batches, C).
    """
    if layers[0].gamma.requires_grad:
        averages = [average for layer in layers for average in (layer.running_mean, layer.running_var)]
        found = [of_kind for of_layer in statistics for of_kind in of_layer]
        for of_batch in zip(*found, strict=True):
            values = [value.to(average.dtype) for value, average in zip(of_batch, averages, strict=True)]
            torch._foreach_lerp_(averages, values, 1 - layers[0].decay)
