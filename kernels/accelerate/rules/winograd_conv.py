"""3x3 convolutions of stride 1 with a quarter of the multiplications, where that pays for the maps that come."""

from collections.abc import Iterator

from torch import nn

from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.devices import no_loops, not_the_cpu
from lorbms_fast.kernels.accelerate.swapping import become
from lorbms_fast.kernels.densenet_block import DenseNetBlock
from lorbms_fast.kernels.winograd_conv import WinogradConv2d, why_no_winograd_conv2d


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
        square = isinstance(module, nn.Conv2d) and (module.kernel_size, module.stride) == ((3, 3), (1, 1))
        ours = module in computed_by_blocks or type(module).__module__.startswith("lorbms_fast.")
        if not square or ours:
            continue
        kind = type(module).__name__
        reason = _why_not(module) or why_not_here
        if reason is None:
            become(module, WinogradConv2d)
        yield Finding(name, f"{kind} -> WinogradConv2d" if reason is None else kind, reason)


def _why_not(module: nn.Conv2d) -> str | None:
    if type(module) is not nn.Conv2d or "forward" in module.__dict__:
        return "is another class than torch's Conv2d, or was changed"
    return why_no_winograd_conv2d(module)
