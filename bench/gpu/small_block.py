"""`python -m bench.gpu.small_block`: one small dense block there and back, for NVIDIA's sanitizer to look at."""

from pathlib import Path

import torch

from bench.gpu.setting import Setting
from lorbms_fast import kernels


def main() -> None:
    """Run it on the GPU, without one in the interpreter."""
    with Setting(Path(), not torch.cuda.is_available(), 0).kernels():
        small_block()
    print("done")


def small_block() -> None:
    """Run it in bfloat16 and float32, with and without a norm."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side = 8 if device.type == "cuda" else 4
    for dtype in (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,):
        for activation in ("instance_norm_relu", "relu"):
            block = kernels.DenseBlock(8, 2, 4, activation=activation, impl="triton").to(device, dtype)
            x = torch.randn(2, 8, side, side, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
            block(x.requires_grad_()).square().mean().backward()


if __name__ == "__main__":
    main()
