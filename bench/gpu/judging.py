"""Results of a form in an arithmetic, to be judged by those that the definition itself gives in it."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from bench.gpu.cases import Case
from lorbms_fast.config import Precision
from lorbms_fast.engine.precision import precision
from lorbms_fast.kernels import Impl
from lorbms_fast.kernels._common.layout import is_channels_last

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def results(case: Case, inputs: Sequence[Tensor], dtype: torch.dtype, impl: Impl | None) -> list[Tensor]:
    """Compute the outputs, then the gradients of a random linear function of them."""
    leaves = [x.to(dtype).requires_grad_(case.gradients) for x in inputs]
    with torch.set_grad_enabled(case.gradients):
        outputs = case.run(*leaves, impl=impl)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    found = [y.detach() for y in outputs]
    moving = [y for y in outputs if y.requires_grad]
    if not moving:
        return found
    probes = _probes(tuple((y.shape, y.dtype, is_channels_last(y)) for y in moving), moving[0].device)
    return [*found, *torch.autograd.grad(moving, leaves, probes)]


@lru_cache(maxsize=8)
def _probes(of: tuple[tuple[torch.Size, torch.dtype, bool], ...], device: torch.device) -> list[Tensor]:
    """Draw all outputs' parts in the linear function, once: a graph that is captured may not draw from a generator."""
    found = []
    for number, (shape, dtype, channels_last) in enumerate(of):
        generator = torch.Generator(device).manual_seed(1 + number)
        drawn = torch.randn(shape, generator=generator, device=device).bfloat16().to(dtype)
        found.append(drawn.contiguous(memory_format=torch.channels_last) if channels_last else drawn)
    return found


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Tell whether two runs have the same bits; NaNs are no bits to agree on."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Fill new tensors with NaN, integers with their greatest value, before kernels write to them."""
    settings: Any = torch.utils.deterministic
    before = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        settings.fill_uninitialized_memory = before


def arithmetic(device: torch.device, name: Precision) -> contextlib.AbstractContextManager[None]:
    """Let products of float32 use TF32 or not; half precision is the dtype of the inputs."""
    return precision(device, "float32" if name == "float32" else "tf32")
