"""Triton form of the output convolution: `kernels.py` has the kernels, `ops.py` launches and registers them."""
