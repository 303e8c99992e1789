"""Gradients of gradients: by the definition, only when somebody asks, so that nobody else pays."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def asked_for() -> bool:
    """Say whether the backward that is running is to be differentiated itself (`create_graph=True`)."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def by_definition(
    definition: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of `definition(*inputs)` that can be differentiated again.

    Args:
        definition: operations of torch's alone.
        inputs: as they were saved for the backward, with what they depend on.
        grad: of the result.

    Returns:
        A gradient for each input that requires one, else None.
    """
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    found = iter(torch.autograd.grad(definition(*inputs), wanted, grad, create_graph=True, allow_unused=True))
    return tuple(next(found) if x is not None and x.requires_grad else None for x in inputs)
