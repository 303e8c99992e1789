"""Spectral normalization (Miyato et al., 2018), of one weight or of all of a network's at once."""

from lorbms_fast.kernels.spectral_norm.functional import advance_u, spectral_norm_all
from lorbms_fast.kernels.spectral_norm.modules import Normalize, SpectralConv2d, SpectralNorm, advance_all_u
from lorbms_fast.kernels.spectral_norm.reference import spectral_norm, spectral_norm_through

__all__ = [
    "Normalize", "SpectralConv2d", "SpectralNorm", "advance_all_u", "advance_u", "spectral_norm", "spectral_norm_all",
    "spectral_norm_through",
]  # fmt: skip
