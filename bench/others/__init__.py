"""Models that nobody here wrote, before and after `lorbms_fast.kernels.accelerate`: `python -m bench.others`."""
