"""The resize convolution as four small convolutions.

Along one axis, output 2 r reads three rows of the enlarged image that all come from input row r, and output 2 r + 1
reads two from row r and one from row r + 1. So with taps w0, w1, w2

    y[2 r] = (w0 + w1 + w2) x[r],    y[2 r + 1] = (w0 + w1) x[r] + w2 x[r + 1],    x[H] = 0,

and in two dimensions four outputs take 1 + 2 + 2 + 4 = 9 taps instead of 36, from an input a sixteenth in size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_conv(x: Tensor, weight: Tensor) -> Tensor:
    """(N, C, H, W) and (O, C, 3, 3) -> (N, O, 2 H, 2 W); documented at the definition."""
    n, _, height, width = x.shape
    w0, w1, w2 = weight.unbind(2)
    even_rows, odd_rows = (w0 + w1 + w2).unsqueeze(2), torch.stack([w0 + w1, w2], 2)
    below, right = F.pad(x, (0, 0, 0, 1)), F.pad(x, (0, 1))
    both = F.pad(below, (0, 1))
    phases = [
        F.conv2d(x, _even(even_rows)),
        F.conv2d(right, _odd(even_rows)),
        F.conv2d(below, _even(odd_rows)),
        F.conv2d(both, _odd(odd_rows)),
    ]
    interleaved = torch.stack(phases, -1).unflatten(-1, (2, 2))  # N, O, H, W, row parity, column parity
    return interleaved.permute(0, 1, 2, 4, 3, 5).reshape(n, -1, 2 * height, 2 * width)


def _even(rows: Tensor) -> Tensor:
    """Taps of even columns: (O, C, k, 3) -> (O, C, k, 1)."""
    return rows.sum(3, keepdim=True)


def _odd(rows: Tensor) -> Tensor:
    """Taps of odd columns: (O, C, k, 3) -> (O, C, k, 2)."""
    return torch.stack([rows[..., 0] + rows[..., 1], rows[..., 2]], 3)
