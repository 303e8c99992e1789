"""Triton form of the dense block: `kernels.py` has the kernels, `ops.py` launches and registers them."""
