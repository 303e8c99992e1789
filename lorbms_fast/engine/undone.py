"""A rehearsal of iterations that leaves no trace."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lorbms_fast.optimizers import Optimizers


@contextmanager
def undone(networks: nn.Module, optimizers: Optimizers, others: Sequence[Tensor] = ()) -> Iterator[None]:
    """Put back, in place, all that iterations inside the block change, also where one fails."""
    tensors = [*networks.parameters(), *networks.buffers(), *optimizers.tensors(), *others]
    before = [tensor.detach().to("cpu", copy=True) for tensor in tensors]
    scalers = [optimizer.scaler.state_dict() for optimizer in vars(optimizers).values()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        for optimizer, scaler in zip(vars(optimizers).values(), scalers, strict=True):
            optimizer.abandon(scaler)
