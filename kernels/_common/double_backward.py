"""Gradients of gradients: by the definition, only when somebody asks, so that nobody else pays."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lorbms_fast.kernels._common.autocast import no_autocast


def asked_for() -> bool:
    """Say whether the backward that is running is to be differentiated itself (`create_graph=True`)."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def by_definition(
    definition: Callable[..., Tensor | Sequence[Tensor]],
    inputs: Sequence[Tensor | None],
    grad: Tensor | Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """Gradients of `definition(*inputs)` that can be differentiated again, None of inputs that require none.

    The definition is operations of torch's alone. Inputs are as they were saved for the backward, with what they depend
    on, and the first is a tensor. `grad` is of the result, or of each of several, None of one that nobody read.
    """
    first = inputs[0]
    assert first is not None
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    with no_autocast(first):  # the forward ran without, or cast before
        made = definition(*inputs)
        results, grads = ([one] if isinstance(one, Tensor) else one for one in (made, grad))
        moved = [(result, g) for result, g in zip(results, grads, strict=True) if g is not None]
        read, sent = zip(*moved, strict=True)
        found = iter(torch.autograd.grad(read, wanted, sent, create_graph=True, allow_unused=True))
    return tuple(next(found) if x is not None and x.requires_grad else None for x in inputs)
