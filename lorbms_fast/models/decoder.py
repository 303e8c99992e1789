"""The decoder on lorbms_fast.kernels."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast import reference
from lorbms_fast.kernels import dense_block_maps, resize_conv
from lorbms_fast.models.spectral import normalised_weights


class Decoder(reference.Decoder):
    """The decoder of Table 3.3 in fewer operations.

    All weights are normalised together, dense blocks are triangular systems, transitions up are four small
    convolutions.
    """

    def normalised_weights(self) -> dict[str, Tensor]:
        """Every spectrally normalised weight by its layer's name: for several calls with the same parameters."""
        return normalised_weights(self)

    def forward(self, f: Tensor, W_bar: dict[str, Tensor] | None = None) -> Tensor:
        """Decode (N, positions, chunk) as (N, 3, S, S) images in [-1, 1], S = 32 sqrt(positions).

        Args:
            f: codes.
            W_bar: what `normalised_weights` returned for the present parameters; computed if left out.
        """
        W_bar = self.normalised_weights() if W_bar is None else W_bar
        side = math.isqrt(f.shape[1])
        new_maps = f.transpose(1, 2).unflatten(2, (side, side))
        for b, width in enumerate(self.block_inputs, start=1):
            x = resize_conv(new_maps, W_bar[f"up{b}"])
            layers = list(self.get_submodule(f"block{b}").named_children())
            weights = [W_bar[f"block{b}.{name}"] for name, _ in layers]
            new_maps = dense_block_maps(x, weights, [layer.bias for _, layer in layers], "relu")
        W_last = W_bar["last"]
        of_x = F.conv2d(x, W_last[:, :width], self.last.bias)  # a 1x1 convolution of the stack needs no stack
        return torch.tanh(of_x + F.conv2d(new_maps, W_last[:, width:]))
