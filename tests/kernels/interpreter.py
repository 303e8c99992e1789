"""Triton's interpreter for the length of a block, so that a GPU's tests run the same kernels natively beside it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import product
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction

from lorbms_fast.kernels._common import dispatch

Replace = Callable[[Any, str, Any], None]
BUILDER, HANDLE = interpreter.InterpreterBuilder, interpreter.TensorHandle


@contextmanager
def interpreted(seed: int) -> Iterator[None]:
    """Run kernels on CPU tensors, with their `tiny` tiles, the programs of a grid in an order drawn at random."""
    with ExitStack() as stack:  # not pytest's, which a bare machine has not got

        def replace(place: Any, name: str, value: Any) -> None:
            stack.enter_context(patch.object(place, name, value, create=True))

        replace(dispatch, "INTERPRETED", True)
        replace(JITFunction, "run", lambda self, *args, **kwargs: _function(self.fn).run(*args, **kwargs))
        replace(JITFunction, "__call__", _call)
        replace(Autotuner, "run", lambda self, *args, **kwargs: self.fn.run(*args, **kwargs, **self.tiny))
        _in_any_order(replace, np.random.default_rng(seed))
        _as_on_a_gpu(replace)
        yield


@cache
def _function(fn: Any) -> interpreter.InterpretedFunction:
    return interpreter.InterpretedFunction(fn)


def _call(self: JITFunction, *args: Any, **kwargs: Any) -> Any:
    """Call a kernel's function; what of Triton's language the interpreter replaces for it is put back."""
    scope = interpreter._patch_lang(self.fn)
    try:
        return _function(self.fn).rewrite()(*args, **kwargs)
    finally:
        scope.restore()


def _in_any_order(replace: Replace, random: np.random.Generator) -> None:
    """Number programs as a GPU starts them: nobody knows how."""
    set_dim, set_idx, place = BUILDER.set_grid_dim, BUILDER.set_grid_idx, {}

    def set_grid_dim(self, *sides):
        set_dim(self, *sides)
        programs = list(product(*map(range, sides)))
        place.clear()
        place.update(zip(programs, (programs[i] for i in random.permutation(len(programs))), strict=True))

    replace(BUILDER, "set_grid_dim", set_grid_dim)
    replace(BUILDER, "set_grid_idx", lambda self, *program: set_idx(self, *place[program]))


def _as_on_a_gpu(replace: Replace) -> None:
    """Mend what interpreters lack: all multiply bfloat16's bits as integers and cut to it instead of rounding.

    Of NaN and a number, a GPU's maximum and minimum are the number; an interpreter's are NaN.

    Before 3.9 there are no constants of it, and 3.6 takes a loop's bound only from an array without dimensions.
    """
    dot, cast, patch_tensor = BUILDER.create_dot, BUILDER.cast_impl, interpreter._patch_lang_tensor

    def widened(x):
        if x.dtype.scalar != tl.bfloat16:
            return x
        return HANDLE((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def cast_impl(self, x, to):
        if x.dtype.scalar != tl.float32 or to.scalar != tl.bfloat16:
            return cast(self, x, to)
        rounded = torch.from_numpy(np.array(x.data)).to(torch.bfloat16)
        return HANDLE(rounded.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)

    def with_index(tensor, scope):
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    replace(BUILDER, "create_maxnumf", lambda self, x, y: self.binary_op(x, y, np.fmax))
    replace(BUILDER, "create_minnumf", lambda self, x, y: self.binary_op(x, y, np.fmin))
    replace(BUILDER, "create_dot", lambda self, a, b, *rest: dot(self, widened(a), widened(b), *rest))
    replace(BUILDER, "cast_impl", cast_impl)
    replace(BUILDER, "create_fp_trunc", cast_impl)
    replace(BUILDER, "get_bf16", lambda self, x: cast_impl(self, self.get_fp32(x), tl.bfloat16))
    replace(interpreter, "_patch_lang_tensor", with_index)
