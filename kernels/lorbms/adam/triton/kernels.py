"""Triton kernels of the step size of Adam."""

import triton
import triton.language as tl


@triton.jit
def step_size(
    loss_ptr, overflow_ptr, t_ptr, flawed_ptr, lr_ptr, factor_ptr, rate_ptr,
    LOG_BETA1: tl.constexpr, LOG_BETA2: tl.constexpr, EXPECTED: tl.constexpr,
):  # fmt: skip
    """Size of a step, in float64, as 1 - beta2^t is the difference of nearly equal numbers."""
    finite = tl.abs(tl.load(loss_ptr)) < float("inf")
    tl.store(flawed_ptr, tl.load(flawed_ptr) + tl.where(finite, 0.0, 1.0))
    overflow = tl.load(overflow_ptr)
    if not EXPECTED:
        tl.store(flawed_ptr + 1, tl.load(flawed_ptr + 1) + overflow)
    t = tl.load(t_ptr) + (1 - overflow)
    tl.store(t_ptr, t)
    rate = tl.load(factor_ptr) * tl.load(lr_ptr) * tl.sqrt(1 - tl.exp(t * LOG_BETA2)) / (1 - tl.exp(t * LOG_BETA1))
    tl.store(rate_ptr, rate.to(tl.float32))
