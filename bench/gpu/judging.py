"""Errors of a form, judged by those that the definition itself makes in the same arithmetic."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.gpu.cases import Case
from lorbms_fast.config import Precision
from lorbms_fast.engine.precision import precision
from lorbms_fast.kernels._common.dispatch import Impl

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
TIMES = 4
"""How many times the definition's own error a form may have."""
ROUNDINGS = 4
"""And so many roundings of the dtype more, where the definition makes none."""


@dataclass(frozen=True)
class Errors:
    """Relative errors against the definition in float64, the worst of outputs and gradients."""

    found: float
    own: float
    """Of the definition in the form's arithmetic."""
    wrong: str | None
    """Names the first result whose error is more than the definition's allows."""


def results(case: Case, inputs: Sequence[Tensor], dtype: torch.dtype, impl: Impl) -> list[Tensor]:
    """Compute the outputs, then the gradients of a random linear function of them."""
    leaves = [x.to(dtype).requires_grad_(case.gradients) for x in inputs]
    with torch.set_grad_enabled(case.gradients):
        outputs = case.run(*leaves, impl=impl)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    found = [y.detach() for y in outputs]
    moving = [y for y in outputs if y.requires_grad]
    if not moving:
        return found
    generator = torch.Generator(inputs[0].device).manual_seed(1)
    probes = [torch.randn(y.shape, generator=generator, device=y.device).bfloat16().to(y.dtype) for y in moving]
    return [*found, *torch.autograd.grad(moving, leaves, probes)]


def judged(found: Sequence[Tensor], own: Sequence[Tensor], exact: Sequence[Tensor], dtype: torch.dtype) -> Errors:
    """Compare a form's results with the exact ones, beside those that the definition has at a dtype."""
    scale = max(e.norm().item() / max(e.numel(), 1) ** 0.5 for e in exact)
    of_found, of_own, wrong = [], [], None
    for number, (f, o, e) in enumerate(zip(found, own, exact, strict=True)):
        # Gradients that are 0 but for rounding (biases under a norm) are measured against all others.
        typical = max(e.norm().item(), 1e-2 * scale * e.numel() ** 0.5) or 1.0
        of_found.append(_apart(f, e) / typical)
        of_own.append(_apart(o, e) / typical)
        allowed = TIMES * of_own[-1] + ROUNDINGS * torch.finfo(dtype).eps
        if math.isnan(allowed):  # the definition itself has no number there: eps may be 0 in half precision
            allowed = math.inf
        if not of_found[-1] <= allowed and wrong is None:  # a NaN is not
            wrong = f"result {number}: {of_found[-1]:.1e}, where the definition has {of_own[-1]:.1e}"
    return Errors(_worst(of_found), _worst(of_own), wrong)


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm())


def _worst(errors: list[float]) -> float:
    return max(errors, key=lambda error: (error != error, error))


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Whether two runs have the same bits; NaNs are no bits to agree on."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Fill new tensors with NaN, integers with their greatest value, before kernels write to them."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = before


@contextlib.contextmanager
def arithmetic(device: torch.device, name: Precision) -> Iterator[None]:
    """Let products of float32 use TF32 or not; half precision is the dtype of the inputs."""
    with precision(device, "float32" if name == "float32" else "tf32"):
        yield
