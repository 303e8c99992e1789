"""The convolution and its gradients as C++ loops, registered as operations of torch's. Documented at the package."""

from ctypes import c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op

LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "conv2d": (2, [c_int64, c_int64, c_int64, c_int, c_void_p, c_void_p, c_int]),
        "conv2d_backward_input": (2, [c_int64, c_int64, c_int64, c_void_p]),
        "conv2d_backward_taps": (2, [c_int64, c_int64, c_int64, c_int, c_void_p]),
    },
)
LANES = 16
"""Channels, in and out, come in so many: a vector of AVX-512, two of AVX2."""


def take(x: Tensor, W: Tensor, y: Tensor | None = None) -> bool:
    """Is a convolution of x by W, (O, C, k, k), into y, or into new maps, done here, and faster than elsewhere?"""
    return (
        W.shape[2:] == (3, 3)
        and x.dtype == W.dtype
        and pays(x.shape[0], x.shape[1], x.shape[2], x.shape[3], W.shape[0], x.dtype)
        and W.is_contiguous(memory_format=torch.channels_last)
        and LOOPS.take(x)
        and (y is None or (y.dtype == x.dtype and LOOPS.take(y)))
    )


@cache
def pays(n: int, C: int, height: int, width: int, O: int, dtype: torch.dtype) -> bool:
    """Does it save enough multiplications of C x O maps for (n, O, height, width)?

    Turning taps into points costs as much as to multiply about C O / 64 times (AMD EPYC with 1 MB of cache a core),
    turning a value of maps as much as 14 times. oneDNN multiplies bfloat16 twice as fast as float32 with AVX512_BF16,
    and many times with AMX; contiguous maps it copies, as has to be done here.
    """
    if C % LANES or O % LANES or dtype not in (torch.float32, torch.bfloat16) or not _has_vectors():
        return False
    positions = n * height * width
    ours = 36 * tiles(n, height, width) + C * O // 64 + positions * 14 * (C + O) / (C * O)
    least = 1.7 if dtype == torch.float32 else 2.6
    return 9 * positions >= least * ours and (dtype == torch.float32 or not _has_amx())


def runs() -> bool:
    """Are there vectors, and a C++ compiler?"""
    return _has_vectors() and LOOPS.take(torch.ones(1, 1, 2, 2))


def _has_amx() -> bool:
    return torch.cpu._is_amx_tile_supported()


def _has_vectors() -> bool:
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def tiles(n: int, height: int, width: int) -> int:
    """Count the tiles of 4x4 positions, each of which takes 36 multiplications a map in and a map out."""
    return n * -(-height // 4) * -(-width // 4)


@cpp_op("winograd(Tensor x, Tensor W, Tensor? b, Tensor(a!) y, int padding, bool relu, bool add) -> ()")
def conv2d(x: Tensor, W: Tensor, b: Tensor | None, y: Tensor, padding: int, relu: bool, add: bool) -> None:
    """Write into y, or add to it."""
    bias = None if b is None else b.to(x.dtype).contiguous()
    of_bias = None if bias is None else bias.data_ptr()
    LOOPS.run("conv2d", (x, y), x.shape[3], len(W), padding, relu, W.data_ptr(), of_bias, add)


@cpp_op("winograd_backward_input(Tensor grad, Tensor W, Tensor(a!) to_x, int padding) -> ()")
def backward_input(grad: Tensor, W: Tensor, to_x: Tensor, padding: int) -> None:
    """Write into `to_x`."""
    LOOPS.run("conv2d_backward_input", (to_x, grad), to_x.shape[3], len(W), padding, W.data_ptr())


@cpp_op("winograd_backward_taps(Tensor grad, Tensor x, Tensor(a!) to_W, int padding, bool relu) -> ()")
def backward_taps(grad: Tensor, x: Tensor, to_W: Tensor, padding: int, relu: bool) -> None:
    """Write into `to_W`."""
    LOOPS.run("conv2d_backward_taps", (x, grad), x.shape[3], len(to_W), padding, relu, to_W.data_ptr())
