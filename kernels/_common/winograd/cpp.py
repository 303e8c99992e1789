"""The convolution and its gradients as C++ loops, registered as operations of torch's. Documented at the package."""

from collections.abc import Sequence
from ctypes import c_int, c_int64, c_void_p
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import CONVOLUTION, NORM, Loops, address, cpp_op
from lorbms_fast.kernels._common.cpp.vectors import LANES, has_vectors, tiles_multiply, vectors_multiply, vectors_take

LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "conv": (2, [*CONVOLUTION, c_int, c_void_p, c_void_p, c_int]),
        "conv_backward_input": (2, [*CONVOLUTION, c_void_p]),
        "conv_backward_taps": (2, [*CONVOLUTION, c_int, c_void_p, c_void_p]),
        "conv_backward_sight": (2, [c_int64] * 4),
        "norm_conv": (2, [*CONVOLUTION, *NORM, *[c_void_p] * 2]),
        "norm_conv_backward_input": (2, [*CONVOLUTION, *NORM, *[c_void_p] * 4]),
        "norm_conv_backward_taps": (2, [*CONVOLUTION, *NORM, *[c_void_p] * 2]),
    },
)


def take(x: Tensor, W: Tensor, y: Tensor | None = None) -> bool:
    """Is a convolution of x by W, (O, C, k, k), into y, or into new maps, done here, and faster than elsewhere?"""
    # `_read` before `pays`: not while torch.compile traces, which warns of functools.cache
    return _read(x, W, y) and pays(x.shape, W.shape, x.dtype)


_SMALL = 8 * 8
"""Positions; maps of 9x9 to 16x16 took 0.3 to 1.6 times as long with oneDNN, smaller ones 0.9 to 4 times (Xeon)."""


def take_taps(grad: Tensor, x: Tensor, W: Tensor) -> bool:
    """Is the gradient of W, (O, C, k, k), computed here? Also with AMX, of small maps, where oneDNN's takes longer."""
    if not _read(x, W, grad):
        return False
    if tiles_multiply(x.dtype):
        return x.shape[2] * x.shape[3] <= _SMALL and possible(W.shape, x.dtype, beside_tiles=True)
    return pays(x.shape, W.shape, x.dtype)


def _read(x: Tensor, W: Tensor, y: Tensor | None) -> bool:
    return (
        W.shape[1:] == (x.shape[1], 3, 3)  # if not, torch says so
        and x.dtype == W.dtype
        and LOOPS.take(x)
        and W.is_contiguous(memory_format=torch.channels_last)
        and (y is None or (y.dtype == x.dtype and LOOPS.take(y)))
    )


@cache
def pays(
    y: torch.Size, taps: torch.Size, dtype: torch.dtype, alone: bool = False, contiguous: bool = False,
    beside_tiles: bool = False,
) -> bool:  # fmt: skip
    """Does it save enough multiplications for maps of y's size, (N, _, [D,] H, W), and taps, (O, C, [k,] 3, 3)?

    oneDNN multiplies bfloat16 twice as fast as float32 with AVX512_BF16, and many times with AMX, which only counts if
    not `beside_tiles`. `alone`: a layer by itself, among others that leave nothing of its own in the caches, for which
    turning a value of maps into points, or back, costs as much as to multiply 8 times more, of `contiguous` maps 18
    times, or 22 where they are copied, and turning a tap into a point 25 times (AMD EPYC).
    """
    if not possible(taps, dtype, beside_tiles):
        return False
    (O, C), depth = taps[:2], prod(taps[2:-2])
    positions = y[0] * prod(y[2:])
    theirs = 9 * (depth * positions - (depth - 1) * y[0] * prod(y[-2:]))  # which leave out slices of zeros
    ours = depth * min(_work(y, C * O, dtype).values())
    least = 1.7 if dtype == torch.float32 else 2.6
    if alone:
        of_value = 8 if not contiguous else 18 if in_rows(y) else 22
        ours += 25 * depth * (tile(y, taps, dtype) + 2) ** 2 + of_value * positions * (C + O) / (C * O)
    return theirs >= least * ours


def possible(taps: Sequence[int], dtype: torch.dtype, beside_tiles: bool = False) -> bool:
    """Do the loops take maps of a dtype and taps of this size, (O, C, ...), on a processor with nothing faster?

    `beside_tiles`: or where AMX is.
    """
    O, C = taps[:2]
    return C % LANES == O % LANES == 0 and (vectors_take if beside_tiles else vectors_multiply)(dtype)


def in_rows(maps: Sequence[int]) -> bool:
    """Do loops go through contiguous maps of this size? They take whole rows of tiles: long ones leave the cache."""
    return len(maps) == 4 and maps[-1] <= 512


def runs() -> bool:
    """Are there vectors, and a C++ compiler?"""
    return has_vectors() and LOOPS.take(torch.ones(1, 1, 2, 2, device="cpu"))


@cache
def tile(y: torch.Size, taps: torch.Size, dtype: torch.dtype) -> int:
    """Choose tiles of 4x4 or 8x8 results for maps of y's size, (N, _, [D,] H, W), and taps, (O, C, [k,] 3, 3)."""
    work = _work(y, taps[0] * taps[1], dtype)
    return min(work, key=work.__getitem__)


def _work(y: torch.Size, maps: int, dtype: torch.dtype) -> dict[int, float]:
    """Multiplications of a map in and a map out by tiles' sides, and as many as last as long as what else sides decide.

    Taps turned to points for 8x8 leave the cache (AMD EPYC with 1 MB of it a core), and there is more to turn. Its
    error is too large for float32.
    """
    work = {4: multiplications(4, y) + maps / 120}
    return work if dtype == torch.float32 else {**work, 8: 1.1 * multiplications(8, y) + maps / 12}


def multiplications(side: int, y: torch.Size) -> int:
    """Count those of a map in and a map out of (N, _, [D,] H, W), and a slice of taps: each tile takes (side + 2)^2."""
    *slices, height, width = y[0], *y[2:]
    return (side + 2) ** 2 * prod(slices) * -(-height // side) * -(-width // side)


class Sight(NamedTuple):
    """How a convolution sees what it reads: beyond the edges as `EDGES[edges]`, and each value as 2x2 if `doubled`.

    Other edges than zeros are for a padding of one.
    """

    edges: int = 0
    doubled: int = 0

    def size(self, x: Tensor) -> list[int]:
        """What is seen of an image (N, C, H, W): height and width."""
        return [side << self.doubled for side in x.shape[2:]]


EDGES = "zeros", "reflect", "replicate"
PLAIN = Sight()
AROUND = 1, 1
"""A padding of 3x3 taps that keeps the maps' size."""


def _run(
    name: str, x: Tensor, y: Tensor, of: Tensor, W: Tensor, padding: Sequence[int], sight: Sequence[int], *others: Any
) -> None:
    """Call a loop of x, y and W; `of` decides the tiles, `padding` is for each of x's dimensions.

    W is contiguous or channels_last, of x's dtype or float32.
    """
    side, slices, depth = tile(of.shape, W.shape, of.dtype), prod(x.shape[2:-2]), prod(W.shape[2:-2])
    before, around, lie = sum(padding[:-2]), padding[-1], (W.stride(1) != 1) + 2 * (W.dtype == torch.float32)
    LOOPS.run(
        name, (x, y), side, slices, x.shape[-1], len(W), depth, before, around, *sight, lie, *map(address, others)
    )


@cpp_op(
    "winograd(Tensor x, Tensor W, Tensor? b, Tensor(a!) y, int[] padding, bool relu, bool add, int[2] sight=[0, 0])"
    " -> ()",
    convolves=(3, 1),
)
def conv(
    x: Tensor, W: Tensor, b: Tensor | None, y: Tensor, padding: Sequence[int], relu: bool, add: bool,
    sight: Sequence[int] = PLAIN,
) -> None:  # fmt: skip
    """Write into y, or add to it."""
    _run("conv", x, y, y, W, padding, sight, relu, W, _bias(b, x), add)


@cpp_op("winograd_backward_input(Tensor grad, Tensor W, Tensor(a!) to_x, int[] padding) -> ()", convolves=(0, 1))
def backward_input(grad: Tensor, W: Tensor, to_x: Tensor, padding: Sequence[int]) -> None:
    """Write into `to_x`."""
    _run("conv_backward_input", to_x, grad, to_x, W, padding, PLAIN, W)


@cpp_op(
    "winograd_backward_taps(Tensor grad, Tensor x, Tensor(a!) to_W, int[] padding, bool relu, int[2] sight,"
    " Tensor(b!)[] sums) -> ()",
    convolves=(0, 2),
)
def backward_taps(
    grad: Tensor, x: Tensor, to_W: Tensor, padding: Sequence[int], relu: bool, sight: Sequence[int],
    sums: Sequence[Tensor],
) -> None:  # fmt: skip
    """Write into `to_W`, and grad's sums, for a bias, into one tensor (O,) in float32, if there is one."""
    _run("conv_backward_taps", x, grad, grad, to_W, padding, sight, relu, to_W, *(sums or (None,)))


@cpp_op("winograd_backward_sight(Tensor seen, Tensor(a!) to_x, int around, int[2] sight) -> ()")
def backward_sight(seen: Tensor, to_x: Tensor, around: int, sight: Sequence[int]) -> None:
    """Write into `to_x` the sums of a gradient of what was seen of it, channels_last, `around` more on each side."""
    LOOPS.run("conv_backward_sight", (to_x, seen), to_x.shape[-1], around, *sight)


@cpp_op("winograd_norm(Tensor x, Tensor[] norm, float eps, Tensor W, Tensor? b, Tensor(a!) y) -> ()", convolves=(5, 3))
def norm_conv(x: Tensor, norm: Sequence[Tensor], eps: float, W: Tensor, b: Tensor | None, y: Tensor) -> None:
    """Write `W * ReLU(norm(x)) + b` into y, padded by one zero on each side.

    A norm is a batch norm's mean, variance, weight and bias, each (C,) and in float32, and eps.
    """
    _run("norm_conv", x, y, y, W, AROUND, PLAIN, *norm, eps, W, _bias(b, x))


@cpp_op(
    "winograd_norm_backward_input(Tensor grad, Tensor x, Tensor[] norm, float eps, Tensor W, Tensor(a!) add_to,"
    " Tensor(b!) sum_g, Tensor(c!) sum_along) -> ()",
    convolves=(0, 4),
)
def norm_backward_input(
    grad: Tensor, x: Tensor, norm: Sequence[Tensor], eps: float, W: Tensor, add_to: Tensor, sum_g: Tensor,
    sum_along: Tensor,
) -> None:  # fmt: skip
    """Add columns' sums of g to `sum_g`, of `g (x - mean)` to `sum_along`, and `scale g` to `add_to`.

    g is what the ReLU lets through of the gradient of what is convolved, scale is `weight / sqrt(var + eps)`; `add_to`
    has x's strides.
    """
    _run("norm_conv_backward_input", add_to, grad, add_to, W, AROUND, PLAIN, *norm, eps, W, x, sum_g, sum_along)


@cpp_op(
    "winograd_norm_backward_taps(Tensor grad, Tensor x, Tensor[] norm, float eps, Tensor(a!) to_W, Tensor(b!)[] sums)"
    " -> ()",
    convolves=(0, 4),
)
def norm_backward_taps(
    grad: Tensor, x: Tensor, norm: Sequence[Tensor], eps: float, to_W: Tensor, sums: Sequence[Tensor]
) -> None:
    """Write into `to_W` and `sums` as `backward_taps` does."""
    _run("norm_conv_backward_taps", x, grad, grad, to_W, AROUND, PLAIN, *norm, eps, to_W, *(sums or (None,)))


def _bias(b: Tensor | None, x: Tensor) -> Tensor | None:
    return None if b is None else b.to(x.dtype).contiguous()
