"""Receptive fields: the part of an image that one position of a network's output can depend on."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lorbms_fast.kernels import use_impl


class Window(NamedTuple):
    """A convolution or pooling on the way: side and stride of its window."""

    kernel: int
    stride: int


def receptive_field(windows: Iterable[Window]) -> int:
    """Compute the side in pixels of what an output position sees: `1 + sum (k - 1) prod(strides before)`.

    Windows lie in a row. Norms, which see everything, and anything else that is not a window do not count.
    """
    side, step = 1, 1
    for kernel, stride in windows:
        side += (kernel - 1) * step
        step *= stride
    return side


def windows_of(network: nn.Module, images: Tensor) -> list[Window]:
    """List the convolutions and poolings that a reference network computes, in order; fast forms compute others.

    They must lie in a row, as in dense blocks, whose longest way passes every layer, and in this package's encoders and
    discriminators; branches would be counted one after another.
    """
    with torch.no_grad(), use_impl("reference"), _Windows() as seen:
        network(images)
    return seen.windows


def sees_everything(network: nn.Module) -> bool:
    """Tell whether a network declares, by an attribute `sees_everything`, that every output sees the whole image."""
    return bool(getattr(network, "sees_everything", False))


class _Windows(TorchDispatchMode):
    """A record of every convolution and max pooling that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[Window] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.windows.append(Window(args[1].shape[-1], args[3][-1]))
        elif func is torch.ops.aten.max_pool2d_with_indices.default:
            _, kernel, *strides = args  # none stands for the kernel's side
            self.windows.append(Window(kernel[-1], strides[0][-1] if strides and strides[0] else kernel[-1]))
        return func(*args, **(kwargs or {}))
