"""A batch's tensors in CuPy without a copy; without a GPU, or without CuPy, in numpy by the same lines.

    python examples/cupy_without_a_copy.py

Both take a tensor by DLPack, so what they write in place is in the tensor. Needs CuPy (extra `cuda`) for a GPU, else
the layers' own two packages.
"""

import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor


def arrays_of(device: torch.device) -> Any:
    """CuPy for a GPU, numpy for the CPU."""
    return importlib.import_module("cupy" if device.type == "cuda" else "numpy")


def darken_left_half(I_ref: Tensor) -> None:
    """Multiply the left half of images (N, 3, S, S) in [-1, 1] as light is multiplied, in place."""
    xp = arrays_of(I_ref.device)
    left = xp.from_dlpack(I_ref)[..., : I_ref.shape[-1] // 2]
    xp.multiply(left + 1, 0.5, out=left)
    xp.subtract(left, 1, out=left)


def main() -> None:
    """Darken a batch and compare with torch's arithmetic."""
    usable = torch.cuda.is_available() and importlib.util.find_spec("cupy") is not None
    I_ref = torch.rand(12, 3, 64, 64, device="cuda" if usable else "cpu").mul_(2).sub_(1)
    expected = torch.cat(((I_ref[..., :32] + 1) * 0.5 - 1, I_ref[..., 32:]), -1)
    darken_left_half(I_ref)
    torch.testing.assert_close(I_ref, expected)
    print(f"{arrays_of(I_ref.device).__name__} wrote into a tensor on {I_ref.device} without a copy")


if __name__ == "__main__":
    main()
