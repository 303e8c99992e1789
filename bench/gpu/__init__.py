"""Checks and measures of the kernels and of the iteration, on a machine with a GPU: see bench/GPU-KIT.md."""
