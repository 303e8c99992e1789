"""Triton form of chunk mixing: `kernels.py` has the kernels, `ops.py` launches and registers them."""
