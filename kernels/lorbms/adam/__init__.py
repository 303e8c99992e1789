"""What a step of Adam decides before it moves parameters, without the host waiting for it."""

import torch
from torch import Tensor

from lorbms_fast.kernels.adam import definition
from lorbms_fast.kernels.dispatch import TRITON, Impl, resolve

if TRITON:
    from lorbms_fast.kernels.adam import triton


@torch.no_grad()
def begin_step(
    loss: Tensor,
    overflow: Tensor,
    t: Tensor,
    flawed: Tensor,
    lr: Tensor,
    factor: Tensor,
    betas: tuple[float, float],
    expected: bool = False,
    impl: Impl | None = None,
) -> Tensor:
    """Count a step of Adam, unless its gradients overflowed; write down what was not finite; give the step's rate.

    Args:
        loss: scalar, whose gradients the step is to take.
        overflow: float32 scalar, 1 where a gradient is not finite, else 0.
        t: float64 scalar, the steps taken so far; this one is added in place.
        flawed: float32 (2,), how many losses, and how many steps' gradients, were not finite; added to in place.
        lr: float64 scalar, learning rate.
        factor: float64 scalar, on the learning rate.
        betas: decay rates of the two moments.
        expected: overflows are, as a scaler answers them: they are not written down.
        impl: form to run; None takes the one in force. The definition is the fused form.

    Returns:
        `factor lr sqrt(1 - beta2^t) / (1 - beta1^t)`, a scalar: float32 from Triton, else float64. Where no step was
        ever taken it is not finite.
    """
    form = triton if resolve(impl, overflow) == "triton" else definition
    return form.begin_step(loss, overflow, t, flawed, lr, factor, betas, expected)
