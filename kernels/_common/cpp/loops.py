"""The loops of a source as Python functions, and operations of torch's that call them."""

from collections.abc import Callable, Sequence
from ctypes import c_char_p, c_double, c_int, c_int64, c_void_p
from functools import cached_property, lru_cache, partial, wraps
from math import prod
from pathlib import Path
from struct import Struct
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lorbms_fast.cpp import library
from lorbms_fast.kernels._common.cpp.lines import DTYPES, known_line_stride, same_lines, same_rows
from lorbms_fast.kernels._common.of_torch import in_dispatch_mode, is_profiled

_HEADERS = Path(__file__).parent
_LIBRARY = torch.library.Library("lorbms_fast", "FRAGMENT")
_HEAD = [c_int, c_int, *[c_int64] * 3]
_MAPS = [c_void_p, c_int64, c_int64]
NORM = [*[c_void_p] * 4, c_double]
"""C types of a batch norm, as `norm.h` says NORM."""
CONVOLUTION = [c_int64] * 10
"""C types of a convolution, as `convolution.h` says CONVOLUTION."""
_NUMBERS = {int, bool, float}
_PLACES: dict[Any, str] = {c_int: "q", c_int64: "q", c_double: "d", c_void_p: "P"}


class Loops:
    """The functions that a C++ source exports.

    Each takes a dtype's number, the threads to use, samples, positions, channels, the lines of some maps, and others:
    `functions` says, by name, how many maps and of which C types the others are. Those of a source that says
    `EXPORT_PACKED` are `packed`: they take numbers alone, 0 for what is not there, and are called sooner.
    """

    def __init__(self, source: Path, functions: dict[str, tuple[int, list[Any]]], packed: bool = False) -> None:
        self._source, self._types, self._packed = source, functions, packed

    def take(self, *maps: Tensor) -> bool:
        """Check that they go through maps like these, of one shape and dtype, on this machine."""
        return same_lines(*maps) and self.built()

    def take_rows(self, *maps: Tensor) -> bool:
        """Check that they go through contiguous maps like these on this machine."""
        return same_rows(*maps) and self.built()

    def take_any(self, maps: Tensor) -> bool:
        """Check that they go through maps like these, or through contiguous ones, on this machine."""
        return self.take(maps) or self.take_rows(maps)

    def built(self) -> bool:
        """Check that they are there, or can be."""
        return library(self._source, _HEADERS) is not None

    def run(self, name: str, maps: Sequence[Tensor], *others: Any) -> None:
        """Call a function; the first maps' shape and dtype count, and no strides of contiguous maps taken as rows."""
        where: list[int] = []
        for each in maps:
            strides = each.stride()
            where += each.data_ptr(), strides[0], known_line_stride(each.shape, strides) or 0
        head = DTYPES[maps[0].dtype], torch.get_num_threads(), *_sizes(maps[0].shape)
        self._functions[name](*head, *where, *others)

    def function(self, name: str) -> Any:
        """Return a function itself, for callers that know where their maps lie."""
        return self._functions[name]

    @cached_property
    def _functions(self) -> dict[str, Any]:
        loops = library(self._source, _HEADERS)
        assert loops is not None, "`take` is asked first"
        suffix, made = ("_packed", _packing) if self._packed else ("", _taking)
        return {
            name: made(getattr(loops, name + suffix), [*_HEAD, *_MAPS * maps, *others])
            for name, (maps, others) in self._types.items()
        }


def address(value: Any) -> Any:
    """Where a tensor lies; anything else is what a loop takes. Numbers first, as torch takes longer to tell them."""
    return value if type(value) in _NUMBERS or not isinstance(value, Tensor) else value.data_ptr()


def _taking(function: Any, types: list[Any]) -> Any:
    function.restype, function.argtypes = None, types
    return function


def _packing(function: Any, types: list[Any]) -> Any:
    called, pack = _taking(function, [c_char_p]), Struct("".join(map(_PLACES.__getitem__, types))).pack
    return lambda *arguments: called(pack(*arguments))


@lru_cache(4096)
def _sizes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Samples, positions and channels."""
    n, channels, *positions = shape
    return n, prod(positions), channels


def cpp_op(schema: str, convolves: tuple[int, int] | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as `torch.ops.lorbms_fast.<name in the schema>`: profilers and counts see one operation.

    Where neither watches it is called straight: torch's dispatcher takes as long as small maps. `convolves` says which
    two of its arguments are maps each of whose positions a convolution multiplies with a weight, and the weight:
    `FlopCounterMode` counts what it counts for torch's, however it is computed.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        name, _, _ = schema.partition("(")
        _LIBRARY.define(schema)
        _LIBRARY.impl(name, function, "CPU")
        packet = getattr(torch.ops.lorbms_fast, name)
        operation = packet.default
        if convolves is not None:
            register_flop_formula(packet)(partial(_multiplied, *convolves))

        @wraps(function)
        def called(*args: Any) -> Any:
            return operation(*args) if in_dispatch_mode() or is_profiled() else function(*args)

        return called

    return decorate


def _multiplied(of_maps: int, of_weight: int, *shapes: Sequence[int], **_: Any) -> int:
    """Operations of a convolution, a multiply-add being two."""
    samples, _channels, *positions = shapes[of_maps]
    return 2 * samples * prod(positions) * prod(shapes[of_weight])
