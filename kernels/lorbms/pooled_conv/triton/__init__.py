"""Triton form of the pooled convolution: `kernels.py` has the kernels, `ops.py` launches and registers them."""
