"""Nearest-neighbour enlarging by two and the 3x3 convolution behind it in one, with 4/9 of the products."""

from collections.abc import Iterator

from torch import nn

from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.devices import not_the_cpu
from lorbms_fast.kernels.accelerate.swapping import PASSED, Passed, become, has_hooks, pair
from lorbms_fast.kernels.accelerate.uses import Uses, uses
from lorbms_fast.kernels.upsample_conv import UpsampleConv2d


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
        kind, reason = type(module).__name__, _why_not(module, found) or not_the_cpu(model)
        if reason is not None:
            yield Finding(name, kind, reason)
            continue
        (conv,) = found[module].after
        become(module, PASSED[type(module)])
        become(conv, UpsampleConv2d)
        if conv is not None:
            pair(module, conv)
        yield Finding(name, f"{kind} -> computed by {names[conv]}")
        yield Finding(names[conv], "Conv2d -> UpsampleConv2d")


def _why_not(upsample: nn.Upsample, found: dict[nn.Module, Uses]) -> str | None:
    doubled = upsample.size is None and upsample.scale_factor in (2, 2.0, (2, 2), (2.0, 2.0))
    if type(upsample) not in (nn.Upsample, nn.UpsamplingNearest2d) or upsample.mode != "nearest" or not doubled:
        return "not the nearest neighbours, twice as many"
    of = found[upsample]
    if of.opaque is not None:
        return f"{of.opaque} cannot be followed"
    conv = next(iter(of.after)) if len(of.after) == 1 else None
    if type(conv) is not nn.Conv2d or has_hooks(conv) or has_hooks(upsample) or found[conv].before != {upsample}:
        return "not one plain convolution, and nothing else, reads each result"
    shape = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups
    return (
        None if shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1) else "the convolution is not 3x3 with stride and padding 1"
    )
