"""Adam's decisions in one launch of one program."""

import math
import sys

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def begin_step_program(
    loss_ptr, overflow_ptr, t_ptr, flawed_ptr, lr_ptr, factor_ptr, rate_ptr,
    LOG_BETA1: tl.constexpr, LOG_BETA2: tl.constexpr, EXPECTED: tl.constexpr,
):  # fmt: skip
    """In float64, as 1 - beta2^t is the difference of nearly equal numbers."""
    finite = tl.abs(tl.load(loss_ptr)) < float("inf")
    tl.store(flawed_ptr, tl.load(flawed_ptr) + tl.where(finite, 0.0, 1.0))
    overflow = tl.load(overflow_ptr)
    if not EXPECTED:
        tl.store(flawed_ptr + 1, tl.load(flawed_ptr + 1) + overflow)
    t = tl.load(t_ptr) + (1 - overflow)
    tl.store(t_ptr, t)
    rate = tl.load(factor_ptr) * tl.load(lr_ptr) * tl.sqrt(1 - tl.exp(t * LOG_BETA2)) / (1 - tl.exp(t * LOG_BETA1))
    tl.store(rate_ptr, rate.to(tl.float32))


def begin_step(
    loss: Tensor,
    overflow: Tensor,
    t: Tensor,
    flawed: Tensor,
    lr: Tensor,
    factor: Tensor,
    betas: tuple[float, float],
    expected: bool,
) -> Tensor:
    """The step's rate, float32; documented at the package's function of this name."""
    rate = torch.empty_like(overflow)
    logs = (math.log(max(beta, sys.float_info.min)) for beta in betas)
    with torch.cuda.device_of(overflow):
        begin_step_program[(1,)](loss, overflow, t, flawed, lr, factor, rate, *logs, expected, num_warps=1)
    return rate
