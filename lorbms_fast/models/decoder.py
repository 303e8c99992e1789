"""The decoder on lorbms_fast.kernels."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast import reference
from lorbms_fast.kernels import dense_block_maps, resize_conv
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
        new_maps = f.transpose(1, 2).unflatten(2, (side, side))
        for b in range(1, len(self.block_inputs) + 1):
            x = resize_conv(new_maps, W_bar[f"up{b}"])
            layers = dict(self.get_submodule(f"block{b}").named_children())
            weights = [W_bar[f"block{b}.{name}"] for name in layers]
            biases = [layer.bias for layer in layers.values() if isinstance(layer, SpectralConv2d)]
            new_maps = dense_block_maps(x, weights, biases, "relu")
        W_last, width = W_bar["last"], x.shape[1]
        of_x = F.conv2d(x, W_last[:, :width], self.last.bias)  # a 1x1 convolution of the stack needs no stack
        return torch.tanh(of_x + F.conv2d(new_maps, W_last[:, width:]))
