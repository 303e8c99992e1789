"""One comparison with a golden number."""

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Check:
    """A quantity, its largest error (absolute; for gradients relative to their norm) and the tolerance."""

    quantity: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """True if the error is within the tolerance; NaN never is."""
        return self.error <= self.tolerance


def distance(computed: Tensor, stored: NDArray[Any]) -> float:
    """Largest absolute difference; infinite where the shapes differ."""
    expected = torch.from_numpy(stored).double()
    if computed.shape != expected.shape:
        return float("inf")
    return (computed.detach().double() - expected).abs().max().item()


def nhwc(x: Tensor) -> Tensor:
    """Permute maps or images to TensorFlow's order."""
    return x.permute(0, 2, 3, 1)


def hwio(weight: Tensor) -> Tensor:
    """Permute a weight to TensorFlow's order; vectors stay as they are."""
    return weight.permute(2, 3, 1, 0) if weight.dim() == 4 else weight.T if weight.dim() == 2 else weight


def to_torch_layout(values: Tensor) -> Tensor:
    """Permute HWIO to torch's OIHW and in x out to out x in; vectors and u stay as they are."""
    if values.dim() == 4:
        return values.permute(3, 2, 0, 1)
    return values.T if values.dim() == 2 and values.shape[0] > 1 else values
