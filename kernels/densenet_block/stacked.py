"""Somebody's dense block on one stack: its own class's forward defines it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from lorbms_fast.kernels._common.dispatch import select_impl
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels._common.winograd import cpp as winograd
from lorbms_fast.kernels.densenet_block.convolution import faster
from lorbms_fast.kernels.densenet_block.layers import Modules, fit, stacked, watched, why_not
from lorbms_fast.kernels.winograd_conv import WinogradConv2d

_NORM, _ACTIVATION = (nn.BatchNorm2d,), (nn.ReLU,)
_CONV, _DROPOUT = (nn.Conv2d, WinogradConv2d), (nn.Dropout, nn.Dropout2d)
_KINDS = (_NORM, _ACTIVATION, _CONV)
"""What follows each other in a layer, once or, with a bottleneck, twice."""
FEW = 128
"""Positions, fewer than which torch's layers go through one by one in less time, unless loops convolve them."""


class Plan(NamedTuple):
    """What a block computes."""

    layers: Sequence[Sequence[str]]
    """Names of each layer's modules, in turn: they may be replaced, and are asked for at every step."""
    new_alone: bool
    """The block's input is no part of its result."""


def why_not_stacked(block: nn.Module, plan: Plan) -> str | None:
    """Say what keeps a block that computes this from being computed on a stack; None if nothing does."""
    _, reason = _read(block, plan)
    return reason


def _read(block: nn.Module, plan: Plan) -> tuple[list[Modules], str | None]:
    """The layers, up to the first that is none, and why a stack cannot hold what they compute."""
    layers: list[Modules] = []
    hooked = False
    for names in plan.layers:
        members: list[nn.Module | None] = []
        for name in names:
            member: nn.Module | None = block
            for part in name.split("."):  # as `get_submodule`, which takes longer than all else here
                member = None if member is None else member._modules.get(part)
                hooked = hooked or (member is not None and watched(member))
            members.append(member)
        layer = _modules(members)
        if layer is None:
            kinds = ", ".join(type(member).__name__ for member in members)
            return layers, f"{kinds}: not a norm, ReLU and 3x3 convolution, or those behind a bottleneck's"
        layers.append(layer)
    if hooked:
        return layers, "there are hooks, or forwards of an object's own"
    return layers, why_not(zip((names[-1] for names in plan.layers), layers, strict=True))


def _modules(members: Sequence[Any]) -> Modules | None:
    """A layer's modules, if these make one in turn."""
    *others, last = members
    dropout = last if type(last) in _DROPOUT else None
    parts: list[Any] = others if dropout is not None else [*members]
    if len(parts) not in (3, 6) or any(type(part) not in _KINDS[i % 3] for i, part in enumerate(parts)):
        return None
    drop_rate = dropout.p if isinstance(dropout, _DROPOUT) and dropout.training else 0.0
    bottleneck = (parts[2], parts[3]) if len(parts) == 6 else None
    return Modules(parts[0], bottleneck, parts[-1], drop_rate, isinstance(dropout, nn.Dropout2d))


class StackedBlock(nn.Module):
    """A dense block whose class, made by `stacked_kind`, is also the one it was written as.

    Where a layer was replaced or a hook is on a part of it, where torch compiles or transforms what runs, inside
    `use_impl("reference")`, and for maps of few positions, the forward of that class runs.
    """

    plan: Plan

    @leaf
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """(N, C, H, W) -> (N, C + layers * growth, H, W), or without the first C."""
        if len(args) == 1 and not kwargs and not torch.compiler.is_compiling():
            (x,) = args
            if select_impl(None, x) != "reference":
                layers, reason = _read(self, self.plan)
                if reason is None and fit(x, layers) and _pays(x, layers[0].conv.weight):
                    return stacked(x, layers, self.plan.new_alone)
        return super().forward(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Its class has no name that pickle could find.
        return _unmade, (type(self).__mro__[2],), self.__dict__


def _pays(x: torch.Tensor, W: torch.Tensor) -> bool:
    return x.numel() >= FEW * x.shape[1] or (x.is_cpu and winograd.LOOPS.built() and faster(x, W))


_OURS: dict[type[nn.Module], type[StackedBlock]] = {}


def stacked_kind(kind: type[nn.Module]) -> type[StackedBlock]:
    """Make the class of a block that was written as this one, always the same."""
    if kind not in _OURS:
        _OURS[kind] = type(f"Stacked{kind.__name__}", (StackedBlock, kind), {})
    return _OURS[kind]


def _unmade(kind: type[nn.Module]) -> StackedBlock:
    return stacked_kind(kind).__new__(stacked_kind(kind))
