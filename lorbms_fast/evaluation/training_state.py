"""The state of a training on disk, for going on after an interruption."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.errors import UserError
from lorbms_fast.weights import read_checkpoint


def save_state(path: Path, iteration: int, network: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Write what a training needs to go on after `iteration` iterations."""
    states = [optimizer.state_dict() for optimizer in optimizers]
    with atomic_write(path) as partial:
        torch.save({"iteration": iteration, "network": network.state_dict(), "optimizers": states}, partial)


def restore_state(path: Path, network: nn.Module, optimizers: Sequence[Optimizer]) -> int:
    """Load a state and return its iteration; 0 where there is none.

    Raises:
        UserError: the file is damaged or of another training.
    """
    if not path.exists():
        return 0
    content = read_checkpoint(path)
    try:
        network.load_state_dict(content["network"])
        for optimizer, state in zip(optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        return int(content["iteration"])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{path} is the state of another training: remove it") from error
