"""The thesis's decoder with transposed convolutions instead of resize convolutions (Section 3.6.1)."""

import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.models import fast


class Decoder(fast.Decoder):
    """Each transition up is a spectrally normalized transposed 3x3 convolution of stride 2, without bias.

    The parameters are those of the resize convolutions, by name, shape and number.
    """

    def _packed_ups(self, W_bar: list[Tensor]) -> list[Tensor]:
        """Leave the normalized weights as they are."""
        return W_bar

    def _up(self, x: Tensor, weight: Tensor) -> Tensor:
        """Compute (N, out, 2 H, 2 W) from (N, in, H, W) maps: every pixel adds a 3x3 patch around twice its place."""
        return F.conv_transpose2d(x, weight.transpose(0, 1), stride=2, padding=1, output_padding=1)
