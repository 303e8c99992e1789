"""Triton form of coordinate channels: `kernels.py` has the kernels, `ops.py` launches and registers them."""
