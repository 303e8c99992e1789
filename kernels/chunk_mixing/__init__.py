"""Mixing of codes, chunk by chunk."""

from lorbms_fast.kernels.chunk_mixing.definition import mix_chunks

__all__ = ["mix_chunks"]
