"""Triton form of batch assembly: `kernels.py` has the kernels, `ops.py` launches and registers them."""
