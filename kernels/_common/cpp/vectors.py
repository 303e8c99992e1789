"""What the loops of `vectors.h` ask of channels and of the processor."""

import torch

from lorbms_fast.kernels._common.of_torch import has_amx

LANES = 16
"""Channels, in and out, come in so many: a vector of AVX-512, two of AVX2."""


def has_vectors() -> bool:
    """Has the processor AVX2 or AVX-512, which these loops are written for?"""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def vectors_take(dtype: torch.dtype) -> bool:
    """Do such loops multiply a dtype here?"""
    return has_vectors() and dtype in (torch.float32, torch.bfloat16)


def vectors_multiply(dtype: torch.dtype) -> bool:
    """Do such loops multiply a dtype, on a processor with nothing faster for it?"""
    return vectors_take(dtype) and not tiles_multiply(dtype)


def tiles_multiply(dtype: torch.dtype) -> bool:
    """Has the processor tiles for a dtype (AMX), which multiply it many times faster than vectors?"""
    return dtype == torch.bfloat16 and has_amx()
