"""Which operations make the host wait for a GPU's result."""

from typing import Any

import torch

_ALWAYS = frozenset(
    {
        torch.ops.aten._local_scalar_dense,
        torch.ops.aten.nonzero,
        torch.ops.aten.masked_select,
        torch.ops.aten._unique2,
        torch.ops.aten.repeat_interleave,
    }
)


def waits(func: Any, args: Any) -> bool:
    """Whether an operation does, with these arguments: an index by a mask is searched for what is true."""
    by = args[1] if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put) else ()
    return func.overloadpacket in _ALWAYS or any(i is not None and i.dtype == torch.bool for i in by)
