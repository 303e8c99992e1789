"""Pads by one, and other layers, whose work the one convolution that reads them does."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.swapping import PASSED, become, has_hooks, pair
from lorbms_fast.kernels.accelerate.uses import Uses

_EDGES = {nn.ReflectionPad2d: "reflect", nn.ReplicationPad2d: "replicate"}


def edges(module: Any) -> str | None:
    """What a layer that pads an image by one puts around it, as torch's padding modes; None of any other layer."""
    return _EDGES.get(type(module)) if getattr(module, "padding", None) == (1, 1, 1, 1) else None


def only_reader(module: nn.Module, found: Mapping[nn.Module, Uses]) -> Any:
    """The one module that reads a module's results, and nothing else; None if there is no such one."""
    reader = next(iter(found[module].after)) if len(found[module].after) == 1 else None
    if reader is None or has_hooks(reader) or found[reader].opaque is not None or found[reader].before != {module}:
        return None
    return reader


def pass_to(conv: nn.Module, names: Mapping[nn.Module, str], *layers: nn.Module) -> Iterator[Finding]:
    """Let a convolution, which knows of it, do the work of layers in front of it."""
    for layer in layers:
        kind = type(layer)
        become(layer, PASSED[kind])
        pair(layer, conv)
        yield Finding(names[layer], f"{kind.__name__} -> computed by {names[conv]}")
