"""Kernel launches written down instead of made: which kernel, on what arguments, how many programs."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction

from lorbms_fast.kernels import use_impl
from lorbms_fast.kernels._common import dispatch
from lorbms_fast.measurement.branches import Branch

_NAMES = {
    torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16",
    torch.int64: "i64", torch.int32: "i32", torch.uint8: "u8", torch.bool: "i1",
}  # fmt: skip
_OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg")


@dataclass(frozen=True)
class Launch:
    """One launch as Triton would specialise its kernel for it."""

    kernel: JITFunction
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    """Numbers as they are; for a tensor its dtype's name and size in bytes; for None, None."""
    signature: dict[str, Any]
    constants: dict[tuple[int, ...], Any]
    attributes: dict[tuple[int, ...], Any]
    options: dict[str, int]
    branch: Branch | None = None

    @property
    def name(self) -> str:
        """Operation and kernel: `dense_block.solve`."""
        folder = str(self.kernel.fn.__module__).removesuffix(".triton.kernels")
        return f"{folder.rpartition('.')[2]}.{self.kernel.__name__}"

    @property
    def shape(self) -> str:
        """The whole numbers among its constants, without block sizes; of a kernel that has none, its grid."""
        names = [parameter.name for parameter in self.kernel.params if parameter.is_constexpr]
        sizes = {name: self.arguments[name] for name in names if not name.startswith(("BLOCK", "TILE"))}
        shown = [f"{name}={value}" for name, value in sizes.items() if isinstance(value, int)]
        return " ".join(shown) or f"grid {'x'.join(map(str, self.grid))}"

    @property
    def programs(self) -> int:
        """Number of the grid's programs."""
        return prod(self.grid)

    @property
    def variant(self) -> str:
        """Names what is compiled: launches that share it share a binary."""
        return f"{self.name} {self.signature} {self.constants} {self.attributes} {self.options}"


@dataclass(frozen=True)
class Array:
    """A tensor of which only the dtype and the size are kept."""

    dtype: str
    bytes: int


@contextmanager
def recorded(branch: Callable[[], Branch | None] = lambda: None) -> Iterator[list[Launch]]:
    """Inside the block, operations choose Triton on any device, and every launch is written down, not made.

    What operations return is memory nobody wrote. Tuned kernels are written down with their first configuration.
    """
    launches: list[Launch] = []

    def run(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        launches.append(replace(launch_of(self, grid, args, kwargs), branch=branch()))

    def tune(self: Autotuner, *args: Any, **kwargs: Any) -> None:
        named = dict(zip(self.arg_names, args, strict=False)) | kwargs
        self.fn.run(*args, **kwargs, **self.early_config_prune(self.configs, named)[0].all_kwargs())

    with (
        patch.object(dispatch, "INTERPRETED", True),
        patch.object(JITFunction, "run", run),
        patch.object(Autotuner, "run", tune),
        use_impl("triton"),
    ):
        yield launches


class TorchOperations(TorchDispatchMode):
    """Counts torch's own operations that touch data; each is a launch on a GPU, or a few."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "lorbms_fast":
            with self:  # what an operation of ours calls of torch's counts too
                return func.redispatch(_CPU, *args, **(kwargs or {}))
        self.count += not (func.namespace == "profiler" or func.is_view or func.overloadpacket in FREE)
        return func(*args, **(kwargs or {}))


_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_NO_KERNEL = "detach empty empty_like empty_strided new_empty new_empty_strided _unsafe_view promote_types"
FREE = {getattr(torch.ops.aten, name) for name in _NO_KERNEL.split()}


def launch_of(kernel: JITFunction, grid: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Launch:
    """Describe a launch; options are taken out of its keywords."""
    options = {name: kwargs.pop(name) for name in _OPTIONS if name in kwargs}
    bound = inspect.signature(kernel.fn).bind(*args, **kwargs)
    bound.apply_defaults()
    grid = grid(bound.arguments) if callable(grid) else grid
    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}

    def typed(value: Any, place: tuple[int, ...]) -> Any:
        if isinstance(value, tuple):
            return tuple(typed(part, (*place, i)) for i, part in enumerate(value))
        if value is None or isinstance(value, bool) or (isinstance(value, int) and value == 1):
            constants[place] = value
            return "constexpr"
        if isinstance(value, float):
            return "fp32"
        if isinstance(value, Tensor):
            divisible = value.data_ptr() % 16 == 0
            name = f"*{_NAMES[value.dtype]}"
        else:
            divisible = value % 16 == 0
            name = _whole(value)
        if divisible:
            attributes[place] = [["tt.divisibility", 16]]
        return name

    for i, parameter in enumerate(kernel.params):
        value = bound.arguments[parameter.name]
        if parameter.is_constexpr:
            constants[(i,)] = value
            signature[parameter.name] = "constexpr"
        elif parameter.do_not_specialize:
            signature[parameter.name] = _whole(value)
        else:
            signature[parameter.name] = typed(value, (i,))
    arguments = tree_map_only(Tensor, _kept, dict(bound.arguments))
    return Launch(kernel, tuple(grid), arguments, signature, constants, attributes, options)


def _whole(value: int) -> str:
    return "i32" if abs(value) < 2**31 else "i64"


def _kept(tensor: Tensor) -> Array:
    return Array(_NAMES[tensor.dtype], tensor.nbytes)
