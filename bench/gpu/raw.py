"""A plain CUDA kernel, compiled by CuPy, for comparison: what one writes by hand in half an hour."""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from lorbms_fast import kernels

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
Pair = tuple[Callable[[], Tensor], Callable[[], Tensor]]


def instance_norm_relu(device: torch.device) -> Pair:
    """36 images of 112 maps of 64x64, as the encoder has them."""
    cupy = importlib.import_module("cupy")
    x = torch.randn(36, 112, 64, 64, device=device)
    y = torch.empty_like(x)
    kernel = cupy.RawKernel(_INSTANCE_NORM_RELU, "instance_norm_relu")
    there, to = cupy.from_dlpack(x), cupy.from_dlpack(y)

    def raw() -> Tensor:
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            kernel((36 * 112,), (256,), (there, to, cupy.int32(64 * 64), cupy.float32(1e-5)))
        return y

    return raw, lambda: kernels.instance_norm_relu(x, 1e-5, impl="triton")


RAW: dict[str, Callable[[torch.device], Pair]] = {"instance norm + ReLU, 112 maps 64x64": instance_norm_relu}
