"""What the loops of `vectors.h` ask of channels and of the processor."""

import torch

LANES = 16
"""Channels, in and out, come in so many: a vector of AVX-512, two of AVX2."""


def has_amx() -> bool:
    """Does the processor multiply bfloat16 in tiles, many times faster than loops of vectors?"""
    return torch.cpu._is_amx_tile_supported()
