"""Nearest-neighbour enlarging by two, padding and the 3x3 convolution behind it in one, with 4/9 of the products."""

from collections.abc import Iterator

from torch import nn

from lorbms_fast.kernels.accelerate.joined import UpsampleConv2d
from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.devices import not_the_cpu
from lorbms_fast.kernels.accelerate.rules.pads import edges, only_reader, pass_to
from lorbms_fast.kernels.accelerate.swapping import Passed, become, has_hooks
from lorbms_fast.kernels.accelerate.uses import Uses, uses


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
        become(conv, UpsampleConv2d, **({} if pad is None else {"around": edges(pad)}))
        yield from pass_to(conv, names, module, *([] if pad is None else [pad]))
        yield Finding(names[conv], "Conv2d -> UpsampleConv2d")


def _chain(upsample: nn.Upsample, found: dict[nn.Module, Uses]) -> tuple[nn.Module | None, nn.Module] | str:
    """The layer that pads what was enlarged, if there is one, and the convolution; or why they cannot be one."""
    doubled = upsample.size is None and upsample.scale_factor in (2, 2.0, (2, 2), (2.0, 2.0))
    if type(upsample) not in (nn.Upsample, nn.UpsamplingNearest2d) or upsample.mode != "nearest" or not doubled:
        return "not the nearest neighbours, twice as many"
    if found[upsample].opaque is not None:
        return f"{found[upsample].opaque} cannot be followed"
    pad, conv = None, only_reader(upsample, found)
    if edges(conv) is not None:
        pad, conv = conv, only_reader(conv, found)
    if isinstance(conv, nn.Conv3d):
        return "a convolution of volumes reads each result, and those of images alone do this work"
    if type(conv) is not nn.Conv2d or has_hooks(upsample):
        return "not one plain convolution, and nothing else, reads each result"
    shape = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups
    padding = (1, 1) if pad is None else (0, 0)
    fits = shape == ((3, 3), (1, 1), padding, (1, 1), 1)
    return (pad, conv) if fits else "the convolution is not 3x3 with stride and padding 1"
