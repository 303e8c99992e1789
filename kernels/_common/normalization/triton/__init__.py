"""Triton form of normalization: `kernels.py` has the kernels, `ops.py` launches and registers them."""
