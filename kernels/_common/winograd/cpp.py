"""The convolution and its gradients as C++ loops, registered as operations of torch's. Documented at the package."""

from ctypes import c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op
from lorbms_fast.kernels._common.cpp.vectors import LANES, has_amx

LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "conv2d": (2, [c_int64, c_int64, c_int64, c_int64, c_int, c_void_p, c_void_p, c_int]),
        "conv2d_backward_input": (2, [c_int64, c_int64, c_int64, c_int64, c_void_p]),
        "conv2d_backward_taps": (2, [c_int64, c_int64, c_int64, c_int64, c_int, c_void_p]),
    },
)


def take(x: Tensor, W: Tensor, y: Tensor | None = None) -> bool:
    """Is a convolution of x by W, (O, C, k, k), into y, or into new maps, done here, and faster than elsewhere?"""
    return (
        W.shape[2:] == (3, 3)
        and x.dtype == W.dtype
        and LOOPS.take(x)  # before `pays`: not while torch.compile traces, which warns of functools.cache
        and pays(x.shape[0], x.shape[1], x.shape[2], x.shape[3], W.shape[0], x.dtype)
        and W.is_contiguous(memory_format=torch.channels_last)
        and (y is None or (y.dtype == x.dtype and LOOPS.take(y)))
    )


@cache
def pays(n: int, C: int, height: int, width: int, O: int, dtype: torch.dtype, alone: bool = False) -> bool:
    """Does it save enough multiplications of C x O maps for (n, O, height, width)?

    oneDNN multiplies bfloat16 twice as fast as float32 with AVX512_BF16, and many times with AMX; contiguous maps it
    copies, as is done here. `alone`: a layer by itself, among others that leave nothing of its own in the caches, for
    which turning a value of maps into points costs as much as to multiply 14 times (AMD EPYC), a call as 2^19 times.
    """
    if C % LANES or O % LANES or dtype not in (torch.float32, torch.bfloat16) or not _has_vectors():
        return False
    positions = n * height * width
    ours = min(_work(n, height, width, C * O, dtype).values())
    least = 1.7 if dtype == torch.float32 else 2.6
    if alone:
        ours += (positions * 14 * (C + O) + (1 << 19)) / (C * O)
        least *= 1.17
    return 9 * positions >= least * ours and (dtype == torch.float32 or not has_amx())


def runs() -> bool:
    """Are there vectors, and a C++ compiler?"""
    return _has_vectors() and LOOPS.take(torch.ones(1, 1, 2, 2))


@cache
def tile(y: torch.Size, taps: torch.Size, dtype: torch.dtype) -> int:
    """Choose tiles of 4x4 or 8x8 results for maps of y's size, (N, _, H, W), and taps, (O, C, 3, 3)."""
    work = _work(y[0], y[2], y[3], taps[0] * taps[1], dtype)
    return min(work, key=work.__getitem__)


def _work(n: int, height: int, width: int, maps: int, dtype: torch.dtype) -> dict[int, float]:
    """Multiplications of a map in and a map out by tiles' sides, and as many as last as long as what else sides decide.

    Taps turned to points for 8x8 leave the cache (AMD EPYC with 1 MB of it a core), and there is more to turn. Its
    error is too large for float32.
    """
    work = {4: multiplications(4, n, height, width) + maps / 120}
    return work if dtype == torch.float32 else {**work, 8: 1.1 * multiplications(8, n, height, width) + maps / 12}


def multiplications(side: int, n: int, height: int, width: int) -> int:
    """Count those of a map in and a map out: each tile takes (side + 2)^2."""
    return (side + 2) ** 2 * n * -(-height // side) * -(-width // side)


def _has_vectors() -> bool:
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


@cpp_op("winograd(Tensor x, Tensor W, Tensor? b, Tensor(a!) y, int padding, bool relu, bool add) -> ()")
def conv2d(x: Tensor, W: Tensor, b: Tensor | None, y: Tensor, padding: int, relu: bool, add: bool) -> None:
    """Write into y, or add to it."""
    bias = None if b is None else b.to(x.dtype).contiguous()
    of_bias = None if bias is None else bias.data_ptr()
    side = tile(y.shape, W.shape, y.dtype)
    LOOPS.run("conv2d", (x, y), side, x.shape[3], len(W), padding, relu, W.data_ptr(), of_bias, add)


@cpp_op("winograd_backward_input(Tensor grad, Tensor W, Tensor(a!) to_x, int padding) -> ()")
def backward_input(grad: Tensor, W: Tensor, to_x: Tensor, padding: int) -> None:
    """Write into `to_x`."""
    side = tile(to_x.shape, W.shape, to_x.dtype)
    LOOPS.run("conv2d_backward_input", (to_x, grad), side, to_x.shape[3], len(W), padding, W.data_ptr())


@cpp_op("winograd_backward_taps(Tensor grad, Tensor x, Tensor(a!) to_W, int padding, bool relu) -> ()")
def backward_taps(grad: Tensor, x: Tensor, to_W: Tensor, padding: int, relu: bool) -> None:
    """Write into `to_W`."""
    side = tile(grad.shape, to_W.shape, grad.dtype)
    LOOPS.run("conv2d_backward_taps", (x, grad), side, x.shape[3], len(to_W), padding, relu, to_W.data_ptr())
