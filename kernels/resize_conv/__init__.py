"""Resize convolution: doubles height and width without checkerboard artefacts (Odena et al., 2016).

A weight is given as it is, or with its taps folded, which the fast forms would do with it first. Several calls with the
same weight share that work, and what autograd adds up, if all are given what `fold_taps` makes. It holds copies: after
a weight has changed, fold again.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lorbms_fast.kernels._common.autocast import compute_dtype, refuse_integers
from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Form, Impl, checked_impl, select_impl
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels._common.packing import Packing
from lorbms_fast.kernels._common.shapes import check_floating, check_maps, misfit, unless_traced
from lorbms_fast.kernels._common.unbatched import takes_one
from lorbms_fast.kernels.resize_conv import fused, reference
from lorbms_fast.kernels.spectral_norm.modules import weight_of

if HAS_TRITON:
    from lorbms_fast.kernels.resize_conv.triton import ops as triton_ops


class FoldedTaps(NamedTuple):
    """A weight as one form reads it, in the reference form the weight; `fold_taps` makes it.

    Give it to `resize_conv` in the place of the weight, whose gradients go through it.
    """

    taps: Tensor
    form: Form
    asked: Impl | None = None
    """What the caller of `fold_taps` asked for."""

    def signature(self) -> tuple[Any, ...]:
        """Describe the taps, whichever form reads them."""
        return *self.channels(), self.taps.dtype

    def in_form(self, form: Form) -> "FoldedTaps":
        """Give the taps as another fast form reads them."""
        if form == self.form or "reference" in (form, self.form):
            return self
        places = triton_ops.OF_PHASES  # taken one by one, as a list of places would be copied from the host
        if form == "fused":
            return FoldedTaps(torch.stack([self.taps[place].T for place in places], 1), form)
        order = sorted(range(9), key=places.__getitem__)
        return FoldedTaps(torch.stack([self.taps[:, place].T for place in order]), form)

    def channels(self) -> tuple[int, int]:
        """Count channels out and in."""
        shape = self.taps.shape
        return {"triton": (shape[2], shape[1]), "fused": (shape[0], shape[2])}.get(self.form, (shape[0], shape[1]))

    def recipe(self) -> tuple[Callable[..., "FoldedTaps"], list[Tensor]]:
        """Give a function that folds a weight in a form, and a weight of this one's shape."""
        O, C = self.channels()
        weight = self.taps.new_empty((O, C, 3, 3), device="meta").requires_grad_(self.taps.requires_grad)
        return _folded_again, [weight]


def _folded_again(tensors: Sequence[Tensor], impl: Impl) -> FoldedTaps:
    return fold_taps(tensors, impl=impl)[0]


def fold_taps(
    weights: Sequence[Tensor], dtype: torch.dtype | None = None, impl: Impl | None = None
) -> list[FoldedTaps]:
    """Fold the taps of several weights, with differentiable operations: on CUDA one launch for all of them.

    >>> weights = [torch.randn(4, 3, 3, 3), torch.randn(2, 4, 3, 3)]
    >>> first, second = fold_taps(weights)
    >>> resize_conv(resize_conv(torch.randn(1, 3, 4, 4), first), second).shape
    torch.Size([1, 2, 16, 16])

    Weights are (O, C, 3, 3) each. Products are computed in `dtype`; None takes autocast's inside its context, else the
    weights' own. `impl` names the form to fold for, None the one in force. Raises ValueError if a weight has another
    shape.
    """
    if not weights:
        raise ValueError("weights are none: expected one at least")
    dtype, form = dtype or compute_dtype(weights[0]), select_impl(impl, weights[0], prepares="resize_conv")
    for weight in weights:
        _check_weight(weight)
    asked = None if impl == "auto" else impl
    if form == "triton":
        taps = triton_ops.fold(weights[0], list(weights[1:]), dtype)
    elif form == "fused":
        taps = [fused.fold(weight, dtype) for weight in weights]
    else:
        taps = list(weights)
    return [FoldedTaps(of_weight, form, asked) for of_weight in taps]


@operation()
def resize_conv(x: Tensor, weight: Tensor | FoldedTaps, impl: Impl | None = None) -> Tensor:
    """Nearest-neighbour enlarging by 4, then a 3x3 convolution of stride 2 padded after, without bias.

    >>> x = torch.randn(2, 3, 8, 8)
    >>> weight = torch.randn(4, 3, 3, 3)
    >>> plain = F.conv2d(F.pad(F.interpolate(x, scale_factor=4), (0, 1, 0, 1)), weight, stride=2)
    >>> torch.testing.assert_close(resize_conv(x, weight), plain, rtol=1e-4, atol=1e-4)

    x is (N, C, H, W), the result (N, O, 2 H, 2 W). The weight is (O, C, 3, 3), or its folded taps, whose form then runs
    unless `impl` names another; else that runs which `impl` names, or for None the one in force. The result is of
    autocast's dtype inside its context, else of x's, or of folded taps' own; the fast forms cast a weight of another
    floating-point dtype. Raises ValueError if a shape or dtype does not fit, or there is no such form, and RuntimeError
    for x of whole numbers.
    """
    refuse_integers(x)
    if isinstance(weight, Tensor):
        (weight,) = fold_taps([weight], compute_dtype(x), select_impl(impl, x))
    elif impl not in (None, "auto"):
        weight = weight.in_form(select_impl(impl, x))
    check_maps(x, weight.channels()[1])
    taps, form, _ = weight
    if form == "reference":
        return reference.resize_conv(x, taps)
    if form == "triton":
        result: Tensor = triton_ops.resize_conv(x.to(taps.dtype), taps)
        return result
    return fused.resize_conv(x.to(taps.dtype), taps)


@unless_traced
def _check_weight(weight: Tensor) -> None:
    if weight.dim() != 4 or weight.shape[2:] != (3, 3):
        raise misfit("weight", weight, "(O, C, 3, 3)")
    check_floating("weight", weight)


class ResizeConv2d(Packing):
    """A resize convolution with its weight, (out_channels, in_channels, 3, 3), and no bias.

    >>> ResizeConv2d(3, 4)(torch.randn(2, 3, 8, 8)).shape
    torch.Size([2, 4, 16, 16])

    `impl` names the form to run; None takes the one in force. Raises ValueError if there is no such form.
    """

    def __init__(self, in_channels: int, out_channels: int, impl: Impl | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.impl = checked_impl(impl)

    @leaf
    @takes_one
    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, 2 H, 2 W); or both without N."""
        return resize_conv(input, weight_of(self) if self.packed is None else self.packed, self.impl)

    def extra_repr(self) -> str:
        """Channels in and out."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"

    @classmethod
    def pack(cls, layers: Sequence[Any]) -> list[FoldedTaps]:
        """Fold the taps of several layers' weights."""
        return fold_taps([weight_of(layer) for layer in layers], impl=layers[0].impl)
