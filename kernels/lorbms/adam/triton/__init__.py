"""Triton form of the step size of Adam: `kernels.py` has the kernels, `ops.py` launches and registers them."""
