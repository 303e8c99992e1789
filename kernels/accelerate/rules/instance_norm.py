"""Instance norms: ours keep channels_last maps so, and go through contiguous ones with vector instructions."""

from collections.abc import Iterator

from torch import nn

from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.devices import no_quick_norm, not_the_cpu
from lorbms_fast.kernels.accelerate.swapping import become
from lorbms_fast.kernels.accelerate.uses import uses
from lorbms_fast.kernels.instance_norm import InstanceNorm2d, InstanceNorm3d

OURS: dict[type[nn.Module], type[nn.Module]] = {nn.InstanceNorm2d: InstanceNorm2d, nn.InstanceNorm3d: InstanceNorm3d}
FEW = 32
"""A PReLU with fewer slopes, one a map, is slow in channels_last bfloat16: torch goes through a position as through one
vector. A norm, stride-2 convolutions around it and the PReLU were 0.80 to 0.95 times as fast with ours,
which keeps that layout, for 8 to 30 maps, and 0.96 to 1.25 times for 32 to 128; in float32 0.96 to 1.10 for fewer than
32 (one thread).
"""


def instance_norms(model: nn.Module) -> Iterator[Finding]:
    """Swap those that no other rule has taken.

    >>> model = nn.Sequential(nn.InstanceNorm3d(4))
    >>> [finding.where for finding in instance_norms(model)]
    ['0']
    """
    why_not_here = no_quick_norm(model)
    before_slopes = _before_few_slopes(model)
    for name, module in model.named_modules():
        if not isinstance(module, nn.modules.instancenorm._InstanceNorm) or isinstance(module, tuple(OURS.values())):
            continue
        kind = type(module).__name__
        reason = why_not(module) or why_not_here
        if reason is None and module in before_slopes:
            reason = f"a PReLU with fewer than {FEW} slopes is quicker behind torch's own"
        if reason is None:
            become(module, OURS[type(module)])
        yield Finding(name, f"{kind} -> {kind} of lorbms_fast" if reason is None else kind, reason)


def why_not(module: nn.Module) -> str | None:
    """Why a norm cannot be ours; None if it can."""
    if type(module) not in OURS or "forward" in module.__dict__:
        return f"{type(module).__name__} is none of torch's InstanceNorm2d and InstanceNorm3d, or was changed"
    if module.track_running_stats:
        return "tracks running statistics, with which torch's own runs"
    return None


def _before_few_slopes(model: nn.Module) -> set[nn.Module | None]:
    """Find what some PReLU reads that multiplies few maps, each by another slope; on CPUs."""
    slopes = [m for m in model.modules() if type(m) is nn.PReLU and 1 < m.num_parameters < FEW]
    if not slopes or not_the_cpu(model) is not None:
        return set()
    found = uses(model)
    return {before for module in slopes for before in found[module].before}
