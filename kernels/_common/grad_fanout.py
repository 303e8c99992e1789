"""The same tensors for several uses, whose gradients are added up all at once."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from lorbms_fast.kernels._common import double_backward


def fan_out(values: Any, uses: int) -> list[Any]:
    """Hand the same values to several uses.

    >>> weight = torch.ones(3, requires_grad=True)
    >>> first, second = fan_out([weight], 2)
    >>> (first[0] * 2 + second[0] * 3).sum().backward()
    >>> weight.grad
    tensor([5., 5., 5.])

    Autograd adds up the gradients of a tensor that is used twice, with an operation for each tensor. If each use takes
    its own of what this returns, one operation adds those of all tensors. None is copied; they may be in tuples, lists
    or dicts, with anything else.
    """
    leaves, structure = tree_flatten(values)
    moving = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if uses == 1 or not moving or not torch.is_grad_enabled():
        return [values] * uses
    views = _FanOut.apply(uses, *(leaves[i] for i in moving))
    result = []
    for use in range(uses):
        for i, view in zip(moving, views[use * len(moving) :], strict=False):
            leaves[i] = view
        result.append(tree_unflatten(leaves, structure))
    return result


class _FanOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, uses: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.uses = uses
        return tuple(tensor.view_as(tensor) for _ in range(uses) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        count = len(grads) // ctx.uses
        total = list(grads[:count])
        for begin in range(count, len(grads), count):
            of_use = grads[begin : begin + count]
            pairs = enumerate(zip(total, of_use, strict=True))
            both = {i: (a, b) for i, (a, b) in pairs if a is not None and b is not None}
            total = [a if a is not None else b for a, b in zip(total, of_use, strict=True)]
            if both:
                first, second = (list(grads) for grads in zip(*both.values(), strict=True))
                batched = double_backward.asked_for(*grads)  # of which no operation takes lists
                sums = list(map(torch.add, first, second)) if batched else torch._foreach_add(first, second)
                for i, added in zip(both, sums, strict=True):
                    total[i] = added
        return None, *total
