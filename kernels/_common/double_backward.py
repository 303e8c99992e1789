"""Gradients of gradients, and of many at once: by the definition, only when somebody asks, so that nobody else pays."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lorbms_fast.kernels._common.autocast import no_autocast
from lorbms_fast.kernels._common.dispatch import transformed
from lorbms_fast.kernels._common.of_torch import are_several, is_zero

_WITHOUT_MEMORY = *are_several, is_zero
"""What a gradient is asked for, as loops could not read it then."""


def asked_for(*grads: Tensor | None) -> bool:
    """Say whether the backward that is running is differentiated itself, or takes what loops cannot read.

    So asks `create_graph=True`, and `is_grads_batched=True`, as a vectorized Jacobian does, and whoever sends a dual
    gradient, of forward-mode differentiation. `grads` are what comes in.
    """
    if torch.compiler.is_compiling():
        return False
    return (
        torch.is_grad_enabled()
        or transformed()
        or any(has_none(grad) for grad in grads if grad is not None for has_none in _WITHOUT_MEMORY)
    )


def by_definition(
    definition: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Sequence[Tensor | None],
    grad: Tensor | Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """Gradients of `definition(*inputs)`, differentiable where asked for, None of inputs that require none.

    The definition is operations of torch's alone. Inputs are as they were saved for the backward, with what they depend
    on, and the first is a tensor. `grad` is of the result, or of each of several, None of one that nobody read.
    """
    first = inputs[0]
    assert first is not None
    again = torch.is_grad_enabled()
    with no_autocast(first), torch.enable_grad():  # the forward ran without autocast, or cast before
        # Views, as what makes an input may make another one's origin too, and autograd would go there.
        inputs = [x.view_as(x) if x is not None and x.requires_grad else x for x in inputs]
        wanted = [x for x in inputs if x is not None and x.requires_grad]
        made = definition(*inputs)
        results, grads = ([one] if isinstance(one, Tensor) else one for one in (made, grad))
        moved = [(result, g) for result, g in zip(results, grads, strict=True) if g is not None]
        read, sent = zip(*moved, strict=True)
        found = iter(torch.autograd.grad(read, wanted, sent, create_graph=again, allow_unused=True))
    return tuple(next(found) if x is not None and x.requires_grad else None for x in inputs)
