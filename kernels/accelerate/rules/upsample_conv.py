"""Nearest-neighbour enlarging by two, padding and the 3x3 convolution behind it in one, with 4/9 of the products."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.devices import not_the_cpu
from lorbms_fast.kernels.accelerate.swapping import PASSED, Passed, become, has_hooks, pair
from lorbms_fast.kernels.accelerate.uses import Uses, uses
from lorbms_fast.kernels.upsample_conv import UpsampleConv2d

_PADS = {nn.ReflectionPad2d: "reflect", nn.ReplicationPad2d: "replicate"}


def upsampled_convolutions(model: nn.Module) -> Iterator[Finding]:
    """Let convolutions enlarge what they read.

    >>> model = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 4, 3, padding=1))
    >>> [finding.what for finding in upsampled_convolutions(model)]
    ['Upsample -> computed by 1', 'Conv2d -> UpsampleConv2d']
    """
    names = {module: name for name, module in model.named_modules()}
    if not any(isinstance(module, nn.Upsample) for module in names):
        return
    found = uses(model)
    for module, name in names.items():
        if not isinstance(module, nn.Upsample) or isinstance(module, Passed):
            continue
        kind, chain = type(module).__name__, _chain(module, found)
        reason = chain if isinstance(chain, str) else not_the_cpu(model)
        if isinstance(chain, str) or reason is not None:
            yield Finding(name, kind, reason)
            continue
        pad, conv = chain
        become(conv, UpsampleConv2d, **({} if pad is None else {"around": _PADS[type(pad)]}))
        for passed in (module, pad):
            if passed is not None:
                kind = type(passed).__name__
                become(passed, PASSED[type(passed)])
                pair(passed, conv)
                yield Finding(names[passed], f"{kind} -> computed by {names[conv]}")
        yield Finding(names[conv], "Conv2d -> UpsampleConv2d")


def _chain(upsample: nn.Upsample, found: dict[nn.Module, Uses]) -> tuple[nn.Module | None, nn.Module] | str:
    """The layer that pads what was enlarged, if there is one, and the convolution; or why they cannot be one."""
    doubled = upsample.size is None and upsample.scale_factor in (2, 2.0, (2, 2), (2.0, 2.0))
    if type(upsample) not in (nn.Upsample, nn.UpsamplingNearest2d) or upsample.mode != "nearest" or not doubled:
        return "not the nearest neighbours, twice as many"
    if found[upsample].opaque is not None:
        return f"{found[upsample].opaque} cannot be followed"
    pad, conv = None, _reader(upsample, found)
    if type(conv) in _PADS and conv.padding == (1, 1, 1, 1):
        pad, conv = conv, _reader(conv, found)
    if type(conv) is not nn.Conv2d or has_hooks(upsample):
        return "not one plain convolution, and nothing else, reads each result"
    shape = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups
    padding = (1, 1) if pad is None else (0, 0)
    fits = shape == ((3, 3), (1, 1), padding, (1, 1), 1)
    return (pad, conv) if fits else "the convolution is not 3x3 with stride and padding 1"


def _reader(module: nn.Module, found: dict[nn.Module, Uses]) -> Any:
    """The one module that reads a module's results, and nothing else; None if there is no such one."""
    reader = next(iter(found[module].after)) if len(found[module].after) == 1 else None
    if reader is None or has_hooks(reader) or found[reader].opaque is not None or found[reader].before != {module}:
        return None
    return reader
