"""Work counted rather than timed: floating point operations, dispatched operations, bytes read and written."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lorbms_fast.kernels._common.winograd import cpp as winograd
from lorbms_fast.kernels.dense_block import cpp as _dense_block  # noqa: F401
from lorbms_fast.kernels.lorbms.linear import cpp as _linear  # noqa: F401
from lorbms_fast.kernels.lorbms.pooled_conv import cpp as _pooled_conv  # noqa: F401


@dataclass(frozen=True)
class Counts:
    """The cost of one call, whatever the machine."""

    gflop: float
    """Floating point operations of convolutions and matrix products, 10^9; a multiply-add counts two."""
    operations: int
    """Operations dispatched to the device; views are not counted."""
    gigabytes: float
    """Bytes that those operations read and write, 10^9, as if nothing stayed in a cache."""


class _Tally(TorchDispatchMode):
    """Counts operations that touch data, and the bytes of their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func not in _FREE and func.namespace != "profiler":
            self.operations += 1
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


_FREE = {torch.ops.aten.detach.default, torch.ops.aten.empty.memory_format, torch.ops.aten.empty_like.default}


def _winograd(of_result: int, of_taps: int) -> Callable[..., int]:
    """Operations of the products in Winograd's convolution; the two arguments, maps and taps, say how many."""

    def operations(*args: Any, **_: Any) -> int:
        y, W = args[of_result], args[of_taps]
        side = winograd.tile(y.shape, W.shape, y.dtype)
        return 2 * winograd.multiplications(side, y.shape) * W.shape[0] * W.shape[1] * prod(W.shape[2:-2])

    operations._get_raw = True  # type: ignore[attr-defined]  # the tensors, not only their shapes
    return operations


def _pushes(of_blocks: int, times: Callable[..., int]) -> Callable[..., int]:
    """Operations of the convolutions in a dense block's system, which are at one argument, `times` over."""

    def operations(y: torch.Tensor, *args: Any, **_: Any) -> int:
        each = _winograd(0, 1)
        return times(*args) * sum(each(y, W) for W in args[of_blocks - 1])

    operations._get_raw = True  # type: ignore[attr-defined]
    return operations


def _to_input(grad: torch.Tensor, *args: Any, **_: Any) -> int:
    """Operations of a pooled 1x1 convolution's gradient, by (O, C, 1, 1): bfloat16 is multiplied by zeros, too."""
    return (8 if grad.dtype == torch.bfloat16 else 2) * grad.numel() * args[2].shape[1]


_to_input._get_raw = True  # type: ignore[attr-defined]


_OURS = {
    torch.ops.lorbms_fast.winograd: _winograd(3, 1),
    torch.ops.lorbms_fast.winograd_backward_input: _winograd(2, 1),
    torch.ops.lorbms_fast.winograd_backward_taps: _winograd(0, 2),
    torch.ops.lorbms_fast.dense_block_solve: _pushes(2, lambda *_: 1),
    torch.ops.lorbms_fast.dense_block_solve_transposed: _pushes(3, lambda *args: 1 + args[-1]),
    torch.ops.lorbms_fast.linear_backward_weight: lambda grad, x, **_: 2 * prod(grad) * x[1],
    torch.ops.lorbms_fast.pooled_conv_backward_input: _to_input,
}


def count(work: Callable[[], object]) -> Counts:
    """Count one call of `work`."""
    with FlopCounterMode(display=False, custom_mapping=_OURS) as flops, _Tally() as tally:
        work()
    return Counts(flops.get_total_flops() / 1e9, tally.operations, tally.bytes / 1e9)
