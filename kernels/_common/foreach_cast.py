"""Many tensors in another dtype at once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels._common import double_backward


def foreach_cast(tensors: Sequence[Tensor], dtype: torch.dtype, made: Sequence[Tensor] = ()) -> list[Tensor]:
    """Every tensor, all of one device, in `dtype`, its memory layout kept: one operation for all, one for gradients.

    A tensor that has the dtype already is not copied; nor is any where `made` are the others' copies.
    """
    others = [tensor for tensor in tensors if tensor.dtype != dtype]
    copies = iter(_Cast.apply(dtype, [copy for copy in made if copy.dtype == dtype], *others) if others else ())
    return [tensor if tensor.dtype == dtype else next(copies) for tensor in tensors]


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, made: list[Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        known = len(made) == len(tensors)
        return tuple([copy.detach() for copy in made] if known else _copies(tensors, [dtype] * len(tensors)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        if double_backward.asked_for(*grads):
            return None, None, *(None if g is None else g.to(dtype) for g, dtype in zip(grads, ctx.dtypes, strict=True))
        given = [(grad, dtype) for grad, dtype in zip(grads, ctx.dtypes, strict=True) if grad is not None]
        copies = iter(_copies(*zip(*given, strict=True)) if given else ())
        return None, None, *(None if grad is None else next(copies) for grad in grads)


def _copies(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]
    torch._foreach_copy_(copies, list(tensors))
    return copies
