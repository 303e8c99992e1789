"""Plain CUDA kernels, compiled by CuPy, for comparison: what one writes by hand in half an hour."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lorbms_fast import kernels
from lorbms_fast.kernels import lorbms

_INSTANCE_NORM_RELU = r"""
extern "C" __global__ void instance_norm_relu(const float* x, float* y, int positions, float eps) {
    __shared__ float sums[256];
    x += (long long)blockIdx.x * positions;
    y += (long long)blockIdx.x * positions;
    float total = 0.0f;
    for (int p = threadIdx.x; p < positions; p += 256) total += x[p];
    sums[threadIdx.x] = total;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    const float mean = sums[0] / positions;
    __syncthreads();
    total = 0.0f;
    for (int p = threadIdx.x; p < positions; p += 256) total += (x[p] - mean) * (x[p] - mean);
    sums[threadIdx.x] = total;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    const float rstd = rsqrtf(sums[0] / positions + eps);
    for (int p = threadIdx.x; p < positions; p += 256) y[p] = fmaxf((x[p] - mean) * rstd, 0.0f);
}
"""
_MIX_CHUNKS = r"""
extern "C" __global__ void mix_chunks(
    const float* f_ref, const float* f_q, const bool* mask, float* f_mix, int chunk, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) f_mix[i] = mask[i / chunk] ? f_q[i] : f_ref[i];
}
"""
Pair = tuple[Callable[[], Tensor], Callable[[], Tensor]]


def instance_norm_relu(device: torch.device) -> Pair:
    """36 images of 112 maps of 64x64, as the encoder has them."""
    cupy = importlib.import_module("cupy")
    x = torch.randn(36, 112, 64, 64, device=device)
    y = torch.empty_like(x)
    kernel = cupy.RawKernel(_INSTANCE_NORM_RELU, "instance_norm_relu")
    there, to = cupy.from_dlpack(x), cupy.from_dlpack(y)

    def raw() -> Tensor:
        with _same_stream(cupy):
            kernel((36 * 112,), (256,), (there, to, cupy.int32(64 * 64), cupy.float32(1e-5)))
        return y

    return raw, lambda: kernels.instance_norm_relu(x, 1e-5, impl="triton")


def mix_chunks(device: torch.device) -> Pair:
    """12 samples of four chunks of 192."""
    cupy = importlib.import_module("cupy")
    f_ref, f_q = torch.randn(2, 12, 4, 192, device=device)
    mask = torch.rand(12, 4, device=device) < 0.5
    f_mix = torch.empty_like(f_ref)
    kernel = cupy.RawKernel(_MIX_CHUNKS, "mix_chunks")
    arrays = [cupy.from_dlpack(tensor) for tensor in (f_ref, f_q, mask.to(torch.uint8), f_mix)]
    n = f_ref.numel()

    def raw() -> Tensor:
        with _same_stream(cupy):
            kernel(((n + 255) // 256,), (256,), (*arrays, cupy.int32(192), cupy.int32(n)))
        return f_mix

    return raw, lambda: lorbms.mix_chunks(f_ref, f_q, mask, impl="triton")


def _same_stream(cupy: Any) -> Any:
    return cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)


RAW: dict[str, Callable[[torch.device], Pair]] = {
    "instance norm + ReLU, 112 maps 64x64": instance_norm_relu,
    "mixing of chunks": mix_chunks,
}
