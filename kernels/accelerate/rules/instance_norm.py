"""Instance norms: ours keep channels_last maps so, and go through contiguous ones with vector instructions."""

from collections.abc import Iterator

from torch import nn

from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.devices import no_quick_norm
from lorbms_fast.kernels.accelerate.swapping import become
from lorbms_fast.kernels.instance_norm import InstanceNorm2d, InstanceNorm3d

OURS: dict[type[nn.Module], type[nn.Module]] = {nn.InstanceNorm2d: InstanceNorm2d, nn.InstanceNorm3d: InstanceNorm3d}


def instance_norms(model: nn.Module) -> Iterator[Finding]:
    """Swap those that no other rule has taken.

    >>> model = nn.Sequential(nn.InstanceNorm3d(4))
    >>> [finding.where for finding in instance_norms(model)]
    ['0']
    """
    why_not_here = no_quick_norm(model)
    for name, module in model.named_modules():
        if not isinstance(module, nn.modules.instancenorm._InstanceNorm) or isinstance(module, tuple(OURS.values())):
            continue
        kind = type(module).__name__
        reason = why_not(module) or why_not_here
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
