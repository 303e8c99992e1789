"""The decoder on lorbms_fast.kernels."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lorbms_fast import reference
from lorbms_fast.kernels import PackedLayers, dense_block_maps, fold_taps, pack_layers, resize_conv
from lorbms_fast.kernels.lorbms import output_conv2d
from lorbms_fast.models.spectral import normalized_weights
from lorbms_fast.reference.layers import SpectralConv2d


class DecoderWeights(NamedTuple):
    """Packed weights of the decoder."""

    ups: Sequence[Any]
    blocks: list[PackedLayers]
    last: tuple[Tensor, Tensor]


class Decoder(reference.Decoder):
    """The decoder of Table 3.3 in fewer operations.

    All weights are normalized together, dense blocks are triangular systems, transitions up are four small
    convolutions.
    """

    def packed(self) -> DecoderWeights:
        """Pack the parameters for several passes with the same ones: see `models.passes`."""
        W_bar = normalized_weights(self)
        numbers = range(1, len(self.block_inputs) + 1)
        blocks = []
        for b in numbers:
            layers = dict(self.get_submodule(f"block{b}").named_children())
            biases = [layer.bias for layer in layers.values() if isinstance(layer, SpectralConv2d)]
            blocks.append(([W_bar[f"block{b}.{name}"] for name in layers], biases))
        ups = self._packed_ups([W_bar[f"up{b}"] for b in numbers])
        return DecoderWeights(ups, pack_layers(blocks), (W_bar["last"], self.last.bias))

    def forward(self, f: Tensor, packed: DecoderWeights | None = None) -> Tensor:
        """Decode (N, positions, chunk) as (N, 3, S, S) images in [-1, 1], S = 32 sqrt(positions)."""
        ups, blocks, last = self.packed() if packed is None else packed
        side = math.isqrt(f.shape[1])
        x = f.transpose(1, 2).unflatten(2, (side, side))
        for b, (up, block) in enumerate(zip(ups[:-1], blocks[:-1], strict=True), start=1):
            x = self._maps(b, up, block, x)
        x = self._up(x, ups[-1])
        return output_conv2d(x, dense_block_maps(x, blocks[-1]), *last)

    def _packed_ups(self, W_bar: list[Tensor]) -> Sequence[Any]:
        """Turn the normalized weights of all transitions up into what `_up` takes."""
        return fold_taps(W_bar)

    def _up(self, x: Tensor, weight: Any) -> Tensor:
        """Compute a transition up: twice as high and wide."""
        return resize_conv(x, weight)

    def _maps(self, b: int, up: Any, block: PackedLayers, x: Tensor) -> Tensor:
        """Compute transition up and dense block b: the new maps, all that the next one reads."""
        return dense_block_maps(self._up(x, up), block)
