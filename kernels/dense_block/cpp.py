"""The triangular system packed, and solved as one loop in C++ over Winograd's and norms', as operations of torch's.

Documented at `system`, where the same loops are called one by one if convolutions are not all Winograd's.
"""

from collections.abc import Sequence
from ctypes import c_double, c_int64, c_void_p, cast
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels._common import amx_conv
from lorbms_fast.kernels._common.cpp import Loops, cpp_op, plain
from lorbms_fast.kernels._common.cpp.lines import DTYPES
from lorbms_fast.kernels._common.norm_relu import cpp as norm_relu
from lorbms_fast.kernels._common.winograd import cpp as winograd

_SYSTEM = [c_void_p, c_int64, c_int64, c_void_p, c_void_p]
LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "pack": (0, [c_int64, c_void_p, c_void_p]),
        "unpack": (0, [c_int64, c_void_p, c_void_p]),
        "solve": (2, [*_SYSTEM, c_double]),
        "solve_transposed": (3, [*_SYSTEM, c_void_p]),
    },
)


def packs(weights: Sequence[Tensor], blocks: Sequence[Tensor]) -> bool:
    """Are the weights of layers, of the dtype that blocks' are added up in, copied into blocks, or back, here?"""
    dtype = blocks[0].dtype
    exact = torch.promote_types(dtype, torch.float32)
    return (
        not torch.compiler.is_compiling()
        and dtype in DTYPES
        and all(weight.dtype == exact for weight in weights)
        and all(block.dtype == dtype for block in blocks)
        and all(plain(each) and each.is_contiguous(memory_format=torch.channels_last) for each in (*weights, *blocks))
        and LOOPS.built()
    )


@cpp_op("dense_block_pack(Tensor[] weights, Tensor(a!)[] blocks) -> ()")
def pack(weights: Sequence[Tensor], blocks: Sequence[Tensor]) -> None:
    """Write the layers' weights into the blocks of the system."""
    _copy("pack", weights, blocks)


@cpp_op("dense_block_unpack(Tensor[] blocks, Tensor(a!)[] weights) -> ()")
def unpack(blocks: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    """Write the blocks into the layers' weights."""
    _copy("unpack", weights, blocks)


def _copy(name: str, weights: Sequence[Tensor], blocks: Sequence[Tensor]) -> None:
    growth, channels, *kernel = weights[0].shape
    places = [(c_void_p * len(weights))(*(each.data_ptr() for each in tensors)) for tensors in (weights, blocks)]
    head = DTYPES[blocks[0].dtype], torch.get_num_threads(), len(weights), prod(kernel), channels
    LOOPS.function(name)(*head, growth, *places)


def take(pushes: Sequence[Tensor], *maps: Tensor) -> bool:
    """Is a system of maps (N, L * growth, H, W) solved here, all of whose pushes pay as Winograd's?

    Also in bfloat16 with AMX, whose tiles then compute them, but for taps' gradients.
    """
    first = maps[0]
    return (
        len(pushes) > 0
        and LOOPS.take(*maps)
        and norm_relu.LOOPS.built()
        and all(
            W.shape[2:] == (3, 3)
            and W.dtype == first.dtype
            and winograd.pays(first.shape, W.shape, W.dtype, beside_tiles=True)
            and W.is_contiguous(memory_format=torch.channels_last)
            for W in pushes
        )
        and winograd.LOOPS.built()
    )


@cpp_op("dense_block_solve(Tensor(a!) y, Tensor(b!) y_hat, Tensor[] pushes, bool normed, float eps) -> Tensor[]")
def solve(y: Tensor, y_hat: Tensor, pushes: Sequence[Tensor], normed: bool, eps: float) -> list[Tensor]:
    """1 / deviations of each layer's maps, with a norm."""
    layers = len(pushes) + 1
    rstd: list[Tensor] = []
    if normed:
        rstd = [*y.new_empty((layers, len(y), y.shape[1] // layers, 1, 1), dtype=torch.float32)]
    LOOPS.run("solve", (y, y_hat), *_system(y, pushes, rstd), eps)
    return rstd


@cpp_op(
    "dense_block_solve_transposed(Tensor(a!) g, Tensor(b!) g_hat, Tensor y_hat, Tensor[] pushes, Tensor[] rstd,"
    " bool to_W) -> Tensor[]"
)
def solve_transposed(
    g: Tensor, g_hat: Tensor, y_hat: Tensor, pushes: Sequence[Tensor], rstd: Sequence[Tensor], to_W: bool
) -> list[Tensor]:
    """Gradients of the pushes, if wanted."""
    gradients = [torch.empty_like(W) for W in pushes] if to_W else []
    to_a = g.new_empty(g.numel() // (len(pushes) + 1) * ((len(pushes) + 1) // 2))
    LOOPS.run("solve_transposed", (g, g_hat, y_hat), *_system(g, pushes, rstd, gradients), to_a.data_ptr())
    return gradients


def _system(y: Tensor, pushes: Sequence[Tensor], rstd: Sequence[Tensor], gradients: Sequence[Tensor] = ()) -> list[Any]:
    """The arguments that both take."""
    table = []
    for i, W in enumerate(pushes):
        table += [W.data_ptr(), gradients[i].data_ptr() if gradients else 0, winograd.tile(y.shape, W.shape, y.dtype)]
    of_rstd = (c_void_p * len(rstd))(*(each.data_ptr() for each in rstd)) if rstd else None
    return [_loops(amx_conv.runs(y.dtype)), y.shape[-1], len(pushes) + 1, (c_int64 * len(table))(*table), of_rstd]


@cache
def _loops(in_tiles: bool) -> Any:
    """The loops of others, in the order of `loops.cpp`; taps' gradients take no less time in tiles."""
    norms = [norm_relu.LOOPS.function(f) for f in ("normalize", "normalize_backward", "add", "add_relu_backward")]
    convs = [(amx_conv if in_tiles else winograd).LOOPS.function(f) for f in ("conv", "conv_backward_input")]
    functions = *norms, *convs, winograd.LOOPS.function("conv_backward_taps")
    return (c_void_p * len(functions))(*(cast(function, c_void_p).value for function in functions))
