"""The arithmetic of convolutions and matrix products."""

from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]


def precision(device: torch.device, arithmetic: Precision) -> torch.autocast:
    """A context in which convolutions and matrix products compute in the given arithmetic.

    Parameters, statistics, losses and optimizers stay float32 (torch.autocast). Its cache of converted weights is off:
    the context spans several updates, and the cache would hand out weights of before the first.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=arithmetic == "bfloat16", cache_enabled=False)
