"""The decoder on lorbms_fast.kernels."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast import reference
from lorbms_fast.kernels import dense_block_maps, resize_conv
from lorbms_fast.models.parts import in_parts
from lorbms_fast.models.spectral import normalised_weights
from lorbms_fast.reference.layers import SpectralConv2d


class Decoder(reference.Decoder):
    """The decoder of Table 3.3 in fewer operations.

    All weights are normalised together, dense blocks are triangular systems, transitions up are four small
    convolutions.
    """

    def forward(self, f: Tensor, W_bar: dict[str, Tensor] | None = None) -> Tensor:
        """Decode (N, positions, chunk) as (N, 3, S, S) images in [-1, 1], S = 32 sqrt(positions).

        Args:
            f: codes.
            W_bar: `normalised_weights` of this network, for several calls with the same parameters.
        """
        W_bar = normalised_weights(self) if W_bar is None else W_bar
        side = math.isqrt(f.shape[1])
        x = f.transpose(1, 2).unflatten(2, (side, side))
        *stages, last = self.block_inputs
        for b in range(1, len(stages) + 1):
            x = in_parts(partial(self._maps, b, W_bar), x, 4 * stages[b - 1])
        return in_parts(partial(self._images, W_bar), x, 4 * last)

    def _stage(self, b: int, W_bar: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        """Transition up and dense block b: what the block reads, and its new maps."""
        x = self._up(x, W_bar[f"up{b}"])
        layers = dict(self.get_submodule(f"block{b}").named_children())
        weights = [W_bar[f"block{b}.{name}"] for name in layers]
        biases = [layer.bias for layer in layers.values() if isinstance(layer, SpectralConv2d)]
        return x, dense_block_maps(x, weights, biases, "relu")

    def _up(self, x: Tensor, W_bar: Tensor) -> Tensor:
        """A transition up with its normalised weight: twice as high and wide."""
        return resize_conv(x, W_bar)

    def _maps(self, b: int, W_bar: dict[str, Tensor], x: Tensor) -> Tensor:
        """The new maps of stage b, all that the next one reads."""
        return self._stage(b, W_bar, x)[1]

    def _images(self, W_bar: dict[str, Tensor], x: Tensor) -> Tensor:
        """The last stage and the convolution to pixels; a 1x1 convolution of a stack needs no stack."""
        x, new_maps = self._stage(len(self.block_inputs), W_bar, x)
        of_x, of_maps = W_bar["last"].split([x.shape[1], new_maps.shape[1]], 1)
        return torch.tanh(F.conv2d(x, of_x, self.last.bias) + F.conv2d(new_maps, of_maps))
