"""Activations that a norm can have behind it, by the names of `torch.nn.functional`."""

from typing import Any, Literal, NamedTuple, TypedDict, Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.kernels._common.dispatch import Impl
from lorbms_fast.kernels._common.in_form import InForm

ActivationName = Literal["identity", "relu", "leaky_relu", "silu", "gelu", "gelu_tanh"]
NAMES: tuple[str, ...] = get_args(ActivationName)
"""As `activation.h` numbers them; `gelu_tanh` is GELU's approximation."""


class Activation(NamedTuple):
    """An activation."""

    name: str
    slope: float = 0.0
    """Of `leaky_relu` below zero."""

    @property
    def number(self) -> int:
        """Number of the activation in C++."""
        return NAMES.index(self.name)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it, by operations of torch's."""
        return activate(x, self.name, self.slope)

    def described(self) -> str:
        """As a layer names it behind its other options."""
        return f"activation={self.name}" + (f", negative_slope={self.slope}" if self.name == "leaky_relu" else "")


IDENTITY, RELU = Activation("identity"), Activation("relu")


def activate(x: Tensor, name: str, slope: float) -> Tensor:
    """Apply an activation; TorchScript can read this."""
    if name == "relu":
        return F.relu(x)
    if name == "leaky_relu":
        return F.leaky_relu(x, slope)
    if name == "silu":
        return F.silu(x)
    if name == "gelu":
        return F.gelu(x)
    if name == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    return x


def named(activation: str | nn.Module | Activation, negative_slope: float | None = None) -> Activation:
    """Find an activation by its name, or the one that a layer of torch's computes; one that was found stays.

    >>> named("leaky_relu", 0.2), named(nn.GELU(approximate="tanh"))
    (Activation(name='leaky_relu', slope=0.2), Activation(name='gelu_tanh', slope=0.0))

    Raises:
        ValueError: there is none, or it has no slope that could be given.
    """
    if activation == "leaky_relu":
        return Activation("leaky_relu", 0.01 if negative_slope is None else float(negative_slope))
    if negative_slope is not None:
        raise ValueError(f"negative_slope {negative_slope} is of 'leaky_relu' alone, activation is {activation!r}")
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, nn.Module):
        found = of_layer(activation)
    else:
        found = Activation(activation) if activation in NAMES else None
    if found is None:
        raise ValueError(f"activation {activation!r}: choose one of {', '.join(NAMES)}, or a layer of torch's like it")
    return found


def of_layer(layer: nn.Module) -> Activation | None:
    """Find the activation that a layer of torch's computes; None if it is none of these."""
    if type(layer) is nn.LeakyReLU:
        return Activation("leaky_relu", float(layer.negative_slope))
    if type(layer) is nn.GELU:
        return Activation("gelu_tanh" if layer.approximate == "tanh" else "gelu")
    names = {nn.ReLU: "relu", nn.SiLU: "silu", nn.Identity: "identity"}
    return Activation(names[type(layer)]) if type(layer) in names else None


class NormOptions(TypedDict, total=False):
    """Options of torch's norms, by torch's names; those that are not given are as torch has them."""

    eps: float
    """Added to the variance."""
    momentum: float | None
    """Of the running statistics; None averages all batches."""
    affine: bool
    """Scale and shift each map by parameters."""
    track_running_stats: bool
    device: Any
    """Of the parameters."""
    dtype: torch.dtype | None
    """Of the parameters."""
    bias: bool
    """Shift each map as well, if `affine`; where torch's own norms know it."""


class NormAct(InForm, nn.Module):
    """Mixin for a norm of torch's that computes the activation behind it, too; of maps of any number of dimensions."""

    def __init__(
        self, num_features: int, activation: str | nn.Module = "relu", *, negative_slope: float | None = None,
        impl: Impl | None = None, **options: Unpack[NormOptions],
    ) -> None:  # fmt: skip
        super().__init__(num_features, impl=impl, **options)
        self.activation, self.negative_slope = named(activation, negative_slope)

    def _activation(self) -> Activation:
        return Activation(self.activation, self.negative_slope)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 3:
            raise ValueError(f"expected 3D input or more (got {input.dim()}D input)")

    def extra_repr(self) -> str:
        """Torch's, and the activation."""
        return f"{super().extra_repr()}, {self._activation().described()}"
