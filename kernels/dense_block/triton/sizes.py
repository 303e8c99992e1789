"""Block sizes of the dense block's kernels, their warps and registers, and whether programs share an image."""

from collections.abc import Callable
from functools import partial

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels._common.custom_op import at_least_16, input_precision

# A tile has at most this many positions. An image with more than `ON_ONE_SM` of them is split, unless there are so
# many images that they fill a large GPU twice: a launch more a layer costs less than tiles that wait for each other.
# From counting a program's steps (docs/engine.md), not measured.
TILE = 256
ON_ONE_SM = 64
MANY = 264
WIDEST = 256
"""Max. maps of a layer: one program makes all of them at a position."""
POSITIONS = 128
"""Max. positions of grad_x per program."""
PROGRAMS = 264
"""Max. programs for a weight gradient: about 2 x 132 multiprocessors."""
_splits: dict[tuple[int, ...], bool] = {}
"""Whether to split, by positions, channels, new maps and norm, where somebody has tried."""


def is_split(images: int, positions: int, *block: int) -> bool:
    """Say whether programs share an image: what somebody tried, or else what the numbers above say."""
    return _splits.get((positions, *block), positions > ON_ONE_SM and images < MANY)


def variants(x: Tensor, maps: int, activation: str) -> dict[str, Callable[[], None]]:
    """Ways to run these kernels where an image has several tiles, by name; each sets its own for such images."""
    _, C, H, W = x.shape
    if min(TILE, ON_ONE_SM) >= H * W:
        return {}
    key = H * W, C, maps, activation != "relu"
    ways = {"whole images": False, "layers": True}
    return {name: partial(_splits.__setitem__, key, split) for name, split in ways.items()}


def channels_a_step(positions: int, dtype: torch.dtype) -> int:
    """Channels, each with a tap, at a step of a product: with few positions it is short and waits, and takes more.

    float32 has no room for more.
    """
    if dtype.itemsize > 2:
        return 32
    return 64 if positions > 64 else 128


def solving_tile(positions: int, growth: int, dtype: torch.dtype, split: bool, norm: bool) -> dict[str, int]:
    """Block sizes of what solves: of split images small ones, but where a norm goes through all in the end."""
    small = 64 if positions <= 256 else TILE if norm else 128
    block = at_least_16(positions, min(TILE, small) if split else TILE)
    deep = (256 if block == 16 else channels_a_step(block, dtype)) if dtype.itemsize == 2 else 64 if block <= 64 else 32
    return {"TILE_M": block, "TILE_G": at_least_16(growth, WIDEST), "TILE_K": deep if growth <= 64 else 32}


def convolving_block(positions: int, maps: int, dtype: torch.dtype) -> dict[str, int]:
    """Block sizes of a convolution as a matrix product; a block lies in one image."""
    return {
        "BLOCK_M": at_least_16(positions, 128),
        "BLOCK_N": at_least_16(maps, 64),
        "BLOCK_K": channels_a_step(positions, dtype),
    }


def gradients_blocks(positions: int, channels: int, maps: int, norm: bool, dtype: torch.dtype) -> dict[str, int]:
    """Return the block sizes that gradients are computed with.

    That of the input comes in blocks of BLOCK_M positions by BLOCK_X channels, summed over BLOCK_K maps, by taps, at a
    time; those of weights come in blocks of BLOCK_C rows by BLOCK_N maps, summed over BLOCK_Q positions at a time.
    """
    wide = 128 if dtype.itemsize == 2 else 64  # float32 spills with more
    return {
        "BLOCK_M": at_least_16(positions, POSITIONS),
        "BLOCK_X": at_least_16(channels, 64),
        "BLOCK_C": wide,
        "BLOCK_N": at_least_16(maps, wide if norm and positions > 64 else 64),
        "BLOCK_K": channels_a_step(positions, dtype),
        "BLOCK_Q": 32 if input_precision(dtype) == "ieee" else 64,
    }


def parameters_division(
    positions: int, stack: int, maps: int, taps: int, blocks: dict[str, int]
) -> tuple[int, int, int]:
    """Return how the positions that gradients of parameters are summed over are divided into parts.

    That is how many programs sum one part, each a block of the weights or of the biases, how many parts there are, and
    how many positions a part has.
    """
    rows = triton.cdiv(triton.cdiv(stack, 16) * 16 * taps, blocks["BLOCK_C"])
    programs, step = (rows + 1) * triton.cdiv(maps, blocks["BLOCK_N"]), blocks["BLOCK_Q"]
    parts = max(1, min(PROGRAMS // programs, triton.cdiv(positions, 4 * step)))
    return programs, parts, triton.cdiv(triton.cdiv(positions, parts), step) * step


def warps_and_stages(rows: int, dtype: torch.dtype) -> dict[str, int]:
    """Warps for a tile with so many rows, and how many steps of a product are loaded ahead: float32 takes registers.

    Exact float32 products leave none for it, and are too slow themselves to wait for memory.
    """
    half = dtype.itemsize == 2
    stages = 3 if half else 2 if input_precision(dtype) == "tf32" else 1
    return {"num_warps": max(4, rows // 32) if half else max(1, rows // 16), "num_stages": stages}


def registers(tile: dict[str, int], warps: int, roomy: bool) -> dict[str, int]:
    """Max. registers of the solving kernels, as the compiler would spill some to fit another program beside it.

    `roomy` programs may have all: those of whole images, which are few, and those that rectify what they read and need
    so many that two fit beside each other with all as well.
    """
    return {"maxnreg": min(255 if roomy else 8 * tile["TILE_G"], 255, 2048 // warps)}


def activating_block(channels: int, positions: int) -> dict[str, int]:
    """Block sizes of the kernels that activate: 32 bytes or more of every position."""
    return {
        "BLOCK_M": int(min(1024, triton.next_power_of_2(positions))),
        "BLOCK_C": int(min(16, triton.next_power_of_2(channels))),
    }
