"""Triton form of 2x2 max pooling: `kernels.py` has the kernels, `ops.py` launches and registers them."""
