"""Adam's decisions in one launch of one program."""

import math
import sys

import torch
from torch import Tensor

from lorbms_fast.kernels.lorbms.adam.triton import kernels


def step_size(
    loss: Tensor, overflow: Tensor, t: Tensor, flawed: Tensor, lr: Tensor, factor: Tensor, betas: tuple[float, float],
    expected: bool,
) -> Tensor:  # fmt: skip
    """The step's rate, float32; documented at the package's function of this name."""
    rate = torch.empty_like(overflow)
    logs = (math.log(max(beta, sys.float_info.min)) for beta in betas)
    with torch.cuda.device_of(overflow):
        # In one warp, as a thread of another might read t after one has stored the next.
        kernels.step_size[(1,)](loss, overflow, t, flawed, lr, factor, rate, *logs, expected, num_warps=1)
    return rate
