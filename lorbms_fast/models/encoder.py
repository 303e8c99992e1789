"""The encoder on lorbms_fast.kernels."""

from functools import partial

from torch import Tensor, nn

from lorbms_fast import reference
from lorbms_fast.kernels import coord_conv2d, dense_block_activated, pooled_conv2d
from lorbms_fast.models.parts import in_parts


class Encoder(reference.Encoder):
    """The encoder of Table 3.1 in fewer operations.

    The coordinate channels become a constant map, every map of a dense block is normalised and rectified once, and
    the transition down reads what the block has activated already.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Encode (N, 3, S, S) images in [-1, 1] as (N, (S/32)^2, chunk); for S = 64 chunk i is quadrant i."""
        x = coord_conv2d(images, self.first.weight, self.first.bias)
        for b in range(1, self.blocks + 1):
            block, down = self.get_submodule(f"block{b}"), self.get_submodule(f"down{b}")
            x = in_parts(partial(_stage, *layers_of(block), *down.parameters()), x, self.widths[b - 1])
        chunks: Tensor = self.last(x)
        return chunks.flatten(2).transpose(1, 2)


def _stage(weights: list[Tensor], biases: list[Tensor], W_down: Tensor, b_down: Tensor, x: Tensor) -> Tensor:
    """A dense block and the transition down behind it: (n, C, H, W) -> (n, C + L * growth, H / 2, W / 2)."""
    return pooled_conv2d(dense_block_activated(x, weights, biases, "instance_norm_relu"), W_down, b_down)


def layers_of(block: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of a dense block's layers, in order."""
    layers = [layer for layer in block.children() if isinstance(layer, nn.Conv2d)]
    return [layer.weight for layer in layers], [layer.bias for layer in layers if layer.bias is not None]
