"""Triton form of the resize convolution: `kernels.py` has the kernels, `ops.py` launches and registers them."""
