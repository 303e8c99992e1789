"""3x3 and 3x3x3 convolutions of stride 1 with a quarter of the multiplications, for maps where that pays."""

from collections.abc import Iterator

from torch import nn

from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.devices import no_loops, not_the_cpu
from lorbms_fast.kernels.accelerate.swapping import become
from lorbms_fast.kernels.densenet_block import DenseNetBlock
from lorbms_fast.kernels.winograd_conv import WinogradConv2d, WinogradConv3d, why_no_winograd_conv
from lorbms_fast.kernels.winograd_conv.fused import TAPS

_FASTER = {nn.Conv2d: WinogradConv2d, nn.Conv3d: WinogradConv3d}


def convolutions(model: nn.Module) -> Iterator[Finding]:
    """Swap those that no other rule has taken.

    >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3))
    >>> [finding.where for finding in convolutions(model) if finding.why_not is None]
    ['1']
    """
    why_not_here = not_the_cpu(model) or no_loops()
    blocks = (module for module in model.modules() if isinstance(module, DenseNetBlock))
    computed_by_blocks = {module for block in blocks for module in block.modules()}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Conv3d) or module in computed_by_blocks:
            continue
        known = module.kernel_size in TAPS and module.stride in ((1, 1), (1, 1, 1))
        if not known or type(module).__module__.startswith("lorbms_fast."):
            continue
        kind = type(module).__name__
        reason = _why_not(module) or why_not_here
        if reason is None:
            become(module, _FASTER[type(module)])
        yield Finding(name, f"{kind} -> {type(module).__name__}" if reason is None else kind, reason)


def _why_not(module: nn.Conv2d | nn.Conv3d) -> str | None:
    if type(module) not in _FASTER or "forward" in module.__dict__:
        return "is another class than torch's Conv2d or Conv3d, or was changed"
    return why_no_winograd_conv(module)
