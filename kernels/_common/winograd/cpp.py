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
        "relu_conv2d": (2, [c_int64, c_int64, c_void_p, c_void_p, c_int]),
        "relu_conv2d_backward_input": (2, [c_int64, c_int64, c_void_p]),
        "relu_conv2d_backward_taps": (2, [c_int64, c_int64, c_void_p]),
    },
)
LANES = 16
"""Channels, in and out, come in so many: a vector of AVX-512, two of AVX2."""


def take(x: Tensor, W: Tensor, y: Tensor | None = None) -> bool:
    """Is a convolution of x by W, (O, C, k, k), into y, or into new maps, done here, and faster than elsewhere?"""
    return (
        W.shape[2:] == (3, 3)
        and x.dtype == W.dtype in (torch.float32, torch.bfloat16)
        and _pays(*x.shape, W.shape[0], x.dtype)
        and W.is_contiguous(memory_format=torch.channels_last)
        and LOOPS.take(x)
        and (y is None or (y.dtype == x.dtype and LOOPS.take(y)))
    )


@cache
def _pays(n: int, C: int, height: int, width: int, O: int, dtype: torch.dtype) -> bool:
    """Does it save enough multiplications of C x O maps?

    Turning taps into points costs as much as to multiply about C O / 64 times (AMD EPYC with 1 MB of cache a core).
    oneDNN multiplies bfloat16 twice as fast as float32 with AVX512_BF16, and many times with AMX.
    """
    direct, ours = 9 * n * height * width, 36 * tiles(n, height, width) + C * O // 64
    least = 2 if dtype == torch.float32 else 3.4
    in_vectors = not (C % LANES or O % LANES) and _has_vectors()
    return in_vectors and direct >= least * ours and (dtype == torch.float32 or not _has_amx())


def _has_amx() -> bool:
    return torch.cpu._is_amx_tile_supported()


def _has_vectors() -> bool:
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def tiles(n: int, height: int, width: int) -> int:
    """Count the tiles of 4x4 positions, each of which takes 36 multiplications a map in and a map out."""
    return n * -(-height // 4) * -(-width // 4)


@cpp_op("relu_conv2d(Tensor x, Tensor W, Tensor? b, Tensor(a!) y, bool add) -> ()")
def relu_conv2d(x: Tensor, W: Tensor, b: Tensor | None, y: Tensor, add: bool) -> None:
    """Write into y, or add to it."""
    bias = None if b is None else b.to(x.dtype).contiguous()
    LOOPS.run("relu_conv2d", (x, y), x.shape[3], len(W), W.data_ptr(), None if bias is None else bias.data_ptr(), add)


@cpp_op("relu_conv2d_backward_input(Tensor grad, Tensor W, Tensor(a!) to_x) -> ()")
def backward_input(grad: Tensor, W: Tensor, to_x: Tensor) -> None:
    """Write into `to_x`."""
    LOOPS.run("relu_conv2d_backward_input", (to_x, grad), grad.shape[3], len(W), W.data_ptr())


@cpp_op("relu_conv2d_backward_taps(Tensor grad, Tensor x, Tensor(a!) to_W) -> ()")
def backward_taps(grad: Tensor, x: Tensor, to_W: Tensor) -> None:
    """Write into `to_W`."""
    LOOPS.run("relu_conv2d_backward_taps", (x, grad), x.shape[3], len(to_W), to_W.data_ptr())
