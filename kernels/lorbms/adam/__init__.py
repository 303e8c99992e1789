"""Step size of Adam, decided on the device, without the host waiting for it."""

import torch
from torch import Tensor

from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Impl, select_impl
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels._common.shapes import check, check_dtype, check_floating
from lorbms_fast.kernels.lorbms.adam import reference

if HAS_TRITON:
    from lorbms_fast.kernels.lorbms.adam.triton import ops as triton_ops


@operation()
@torch.no_grad()
def step_size(
    loss: Tensor, overflow: Tensor, t: Tensor, flawed: Tensor, lr: Tensor, factor: Tensor, betas: tuple[float, float],
    expected: bool = False, impl: Impl | None = None,
) -> Tensor:  # fmt: skip
    """Count a step of Adam, unless its gradients overflowed; write down what was not finite; give the step's rate.

    >>> t, rate = torch.zeros((), dtype=torch.float64), torch.tensor(1e-3, dtype=torch.float64)
    >>> one, no = torch.ones((), dtype=torch.float64), torch.zeros(())
    >>> step_size(torch.tensor(0.5), no, t, torch.zeros(2), rate, one, (0.9, 0.999))
    tensor(0.0003, dtype=torch.float64)

    All are scalars, t, lr and factor float64: the loss, `overflow`, 1 where a gradient is not finite, else 0, and t,
    the steps taken so far, to which this one is added in place. `flawed`, two floating-point numbers, counts losses,
    and steps' gradients, that were not finite; overflows that are `expected`, as a scaler answers them, do not count.
    The definition is the fused form.

    Returns `factor lr sqrt(1 - beta2^t) / (1 - beta1^t)`, a scalar: float32 from Triton, else float64. Where no step
    was ever taken it is not finite. Raises ValueError if a shape or dtype does not fit.
    """
    for name, scalar in (("loss", loss), ("overflow", overflow), ("t", t), ("lr", lr), ("factor", factor)):
        check(name, scalar)
    check("flawed", flawed, 2)
    for name, scalar in (("t", t), ("lr", lr), ("factor", factor)):
        check_dtype(name, scalar, torch.float64)
    check_floating("flawed", flawed)
    form = triton_ops if select_impl(impl, overflow) == "triton" else reference
    return form.step_size(loss, overflow, t, flawed, lr, factor, betas, expected)
