"""3x3 and 3x3x3 convolutions of stride 1 with a quarter of the multiplications, for maps where that pays.

They see what a pad in front of them would put around an image.
"""

from collections.abc import Iterator

from torch import nn

from lorbms_fast.kernels.accelerate import joined
from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.dense_block import computed_by_blocks
from lorbms_fast.kernels.accelerate.rules.devices import no_loops, not_the_cpu
from lorbms_fast.kernels.accelerate.rules.pads import edges, only_reader, pass_to
from lorbms_fast.kernels.accelerate.swapping import become, has_hooks, kind_of
from lorbms_fast.kernels.accelerate.uses import uses
from lorbms_fast.kernels.winograd_conv import WinogradConv2d, WinogradConv3d, why_no_winograd_conv
from lorbms_fast.kernels.winograd_conv.fused import TAPS

_FASTER = {nn.Conv2d: WinogradConv2d, nn.Conv3d: WinogradConv3d}


def convolutions(model: nn.Module) -> Iterator[Finding]:
    """Swap those that no other rule has taken, with pads that they alone read.

    >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3))
    >>> [finding.where for finding in convolutions(model) if finding.why_not is None]
    ['1', '2']
    """
    why_not_here = not_the_cpu(model) or no_loops()
    of_blocks = computed_by_blocks(model)
    names = {module: name for name, module in model.named_modules()}
    pads = {} if why_not_here else _pads(model)
    for module, name in names.items():
        if not isinstance(module, nn.Conv2d | nn.Conv3d) or module in of_blocks:
            continue
        known = module.kernel_size in TAPS and module.stride in ((1, 1), (1, 1, 1))
        if not known or type(module).__module__.startswith("lorbms_fast."):
            continue
        kind = type(module).__name__
        reason = _why_not(module) or why_not_here
        if reason is None and module in pads:
            become(module, joined.WinogradConv2d, around=edges(pads[module]))
            yield from pass_to(module, names, pads[module])
        elif reason is None:
            become(module, _FASTER[kind_of(module)])
        yield Finding(name, f"{kind} -> {kind_of(module).__qualname__}" if reason is None else kind, reason)


def _why_not(module: nn.Conv2d | nn.Conv3d) -> str | None:
    if kind_of(module) not in _FASTER or "forward" in module.__dict__:
        return "is another class than torch's Conv2d or Conv3d, or was changed"
    return why_no_winograd_conv(module)


def _pads(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """Layers that pad by one what a convolution, which pads nothing, alone reads: by the convolution."""
    pads = [module for module in model.modules() if edges(module) is not None and not has_hooks(module)]
    found = uses(model) if pads else {}
    readers = {only_reader(pad, found): pad for pad in pads if found[pad].opaque is None}
    return {conv: pad for conv, pad in readers.items() if getattr(conv, "padding", None) in ((0, 0), "valid")}
