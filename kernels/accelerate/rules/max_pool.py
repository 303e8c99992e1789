"""2x2 max pools: one byte is kept for each result where torch keeps eight."""

from collections.abc import Iterator

from torch import nn

from lorbms_fast.kernels.accelerate.joined import MaxPool2x2
from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.devices import not_the_cpu
from lorbms_fast.kernels.accelerate.swapping import become

_TWO = (2, (2, 2), [2, 2])


def max_pools(model: nn.Module) -> Iterator[Finding]:
    """Swap pools of 2x2 squares side by side.

    >>> [finding.what for finding in max_pools(nn.Sequential(nn.MaxPool2d(2)))]
    ['MaxPool2d -> MaxPool2x2']
    """
    for name, module in model.named_modules():
        if type(module) is nn.MaxPool2d and "forward" not in module.__dict__:
            reason = _why_not(module) or not_the_cpu(model)
            if reason is None:
                become(module, MaxPool2x2)
            yield Finding(name, "MaxPool2d -> MaxPool2x2" if reason is None else "MaxPool2d", reason)


def _why_not(pool: nn.MaxPool2d) -> str | None:
    plain = pool.padding in (0, (0, 0)) and pool.dilation in (1, (1, 1)) and not pool.ceil_mode
    if pool.kernel_size in _TWO and pool.stride in _TWO and plain and not pool.return_indices:
        return None
    return "not of 2x2 squares side by side"
