"""Triton form of the loss head: `kernels.py` has the kernels, `ops.py` launches and registers them."""
