"""Triton form of the spectral norm: `kernels.py` has the kernels, `ops.py` launches and registers them."""
