"""What torch knows and tells by private names alone: of what runs, of tensors and of the processor.

The names are those of torch 2.11 to 2.15; `tests/kernels/_common/test_of_torch.py` holds each answer against what torch
does in public. Private operations (`torch._foreach_...`, `F._verify_...`) stand where they are used.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef as CustomOpDef
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack, is_in_torch_dispatch_mode

P = ParamSpec("P")
R = TypeVar("R")

is_profiled = torch.autograd._profiler_enabled  # type: ignore[attr-defined]
"""Does a profiler write down what runs?"""
in_dispatch_mode = is_in_torch_dispatch_mode
"""Does a TorchDispatchMode see what runs, which may count it, record it or change it?"""
modes_in_force = _get_current_dispatch_mode_stack
"""These modes, the outermost first."""
in_transform = torch._C._are_functorch_transforms_active
"""Does torch.func transform what runs (vmap, grad, jvp, ...)?"""
is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
"""Is a tensor one of torch.func's, perhaps kept beyond its transform?"""
is_zero = Tensor._is_zerotensor
"""Is a tensor a zero of forward-mode differentiation, which takes no memory?"""
are_several = [
    getattr(torch._C._functorch, name)
    for name in ("is_legacy_batchedtensor", "is_batchedtensor")
    if hasattr(torch._C._functorch, name)
]
"""Are tensors sent through as one, in this of torch's two ways? Gradients go the older one in 2.13."""

_HAS_AMX: bool = torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx()


def has_amx() -> bool:
    """Does the processor multiply bfloat16 in tiles (AMX), and does the system let this process, which has asked?"""
    return _HAS_AMX


def constant_to_compilers(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function as `torch.compiler.assume_constant_result` does, which imports the compiler for a second."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def soon_applied(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """Give a function's `apply` without its questions about transforms of torch.func, and what they left behind."""
    applied: Callable[..., Any] = super(torch.autograd.Function, function).apply  # type: ignore[misc]
    return applied


def in_forward_mode() -> bool:
    """Are derivatives taken forward, of dual tensors?"""
    return forward_ad._current_level >= 0
