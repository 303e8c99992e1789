"""Algorithm 1: the choice of the quadrants of a reference image that those of its candidates replace."""

import torch
from torch import Tensor

from lorbms_fast.errors import UserError

QUADRANTS = "q1 top left, q2 top right, q3 bottom left, q4 bottom right"
"""Order of a mask's digits, in words."""
TAU = 16_000.0
"""The thesis's threshold, squared L2 between DeepCluster features."""


def mixing_mask(distances: Tensor, tau: float | Tensor) -> Tensor:
    """Decide which quadrants are replaced: at least one is, at least one is not.

    `keep_i = (i == argmax d or d_i > tau) and not (i == argmin d)`; the first index wins ties. Where this would
    replace all four (four equal distances not above tau) the last quadrant is kept.

    Distances (N, 4) are squared L2 between the quadrants of the reference and of its candidates, tau is on their scale.
    Returns (N, 4) bool, True where the quadrant is replaced (m_i = 1).
    """
    mask = author_mixing_mask(distances, tau)
    last = torch.arange(distances.shape[1], device=distances.device) == distances.shape[1] - 1
    return mask & ~(mask.all(1, keepdim=True) & last)


def author_mixing_mask(distances: Tensor, tau: float | Tensor) -> Tensor:
    """Decide as `mixing_mask`, but let four equal distances not above tau replace all four, as the author's program."""
    quadrant = torch.arange(distances.shape[1], device=distances.device)
    farthest = quadrant == distances.argmax(1, keepdim=True)
    nearest = quadrant == distances.argmin(1, keepdim=True)
    return ~((farthest | (distances > tau)) & ~nearest)


def used_candidates(mask: Tensor) -> Tensor:
    """List quadrant and sample of every candidate that a mask (N, 4) uses, by quadrant, then by sample.

    Returns (2, K) int64, K the number of replaced quadrants, for which the host waits on a GPU.
    """
    return mask.T.nonzero().T


def padded_candidates(mask: Tensor, size: int) -> Tensor:
    """List `used_candidates` of masks (..., N, 4), padded with the first of them to `size`, (..., 2, size) int64.

    `size` is no less than a mask uses; no host waits.
    """
    by_quadrant = mask.transpose(-1, -2).flatten(-2)
    used_first = by_quadrant.logical_not().byte().argsort(stable=True)[..., :size]
    is_used = torch.arange(size, device=mask.device) < by_quadrant.sum(-1, keepdim=True)
    place = torch.where(is_used, used_first, used_first[..., :1])
    n = mask.shape[-2]
    return torch.stack([place // n, place % n], -2)


def threshold_mask(distances: Tensor, tau: float | Tensor) -> Tensor:
    """Decide which quadrants are replaced inside a batch (Appendix D.2): those below tau, though one stays.

    Where all are below, the farthest stays, the first of equals. Nothing forces a replacement. Distances (N, tiles) are
    squared L2 between the representations of tiles and of their candidates; the mask is (N, tiles) bool.

    >>> threshold_mask(torch.tensor([[1.0, 9, 2, 9], [1, 4, 2, 3], [8, 9, 8, 9]]), tau=5).int()
    tensor([[1, 0, 1, 0],
            [1, 0, 1, 1],
            [0, 0, 0, 0]], dtype=torch.int32)
    """
    mask = distances < tau
    farthest = torch.arange(distances.shape[1], device=distances.device) == distances.argmax(1, keepdim=True)
    return mask & ~(mask.all(1, keepdim=True) & farthest)


def in_order(tiles: int) -> str:
    """Name the first and the last digit of a mask, for where there is no room for words.

    >>> in_order(4), in_order(9)
    ('q1..q4', '1..9')
    """
    return "q1..q4" if tiles == 4 else f"1..{tiles}"


def parse_mask(text: str, tiles: int = 4) -> Tensor:
    """Read a mask such as `0010`, (tiles,) bool: quadrants q1 q2 q3 q4, or other tiles row by row.

    1 takes the object image's chunk. Raises UserError unless it is as many characters 0 or 1.
    """
    if len(text) != tiles or set(text) - {"0", "1"}:
        quadrants = f"for {QUADRANTS}, e.g. 0010"
        places = quadrants if tiles == 4 else "one a tile, row by row"
        raise UserError(f"mask '{text}': write {tiles} digits 0 or 1, {places}")
    return torch.tensor([digit == "1" for digit in text])
