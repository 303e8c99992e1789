"""Tests of Triton forms run in the interpreter, against definitions in float64; whatever kernels do not write is NaN.

A program of a grid takes some hundredths of a second there: tiny shapes, few programs.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from lorbms_fast.kernels._common.dispatch import TRITON

collect_ignore_glob = [] if TRITON else ["*_triton.py"]


@pytest.fixture(autouse=True)
def in_the_interpreter(request: pytest.FixtureRequest) -> None:
    """Prepare the tests of Triton forms, which are in files of this name."""
    if request.path.stem.endswith("_triton"):
        for fixture in ("poisoned", "bfloat16_as_on_a_gpu"):
            request.getfixturevalue(fixture)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fill new tensors with NaN (integers with their greatest value) before kernels write to them."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def bfloat16_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.9's interpreter multiplies bfloat16's bits as integers, and cuts to it instead of rounding."""
    import triton.language as tl
    from triton.runtime import interpreter

    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    dot, cast = builder.create_dot, builder.cast_impl

    def widened(x):
        if x.dtype.scalar != tl.bfloat16:
            return x
        return handle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self, a, b, *rest):
        return dot(self, widened(a), widened(b), *rest)

    def cast_impl(self, x, to):
        if x.dtype.scalar != tl.float32 or to.scalar != tl.bfloat16:
            return cast(self, x, to)
        rounded = torch.from_numpy(np.array(x.data)).to(torch.bfloat16)
        return handle(rounded.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)

    monkeypatch.setattr(builder, "create_dot", create_dot)
    monkeypatch.setattr(builder, "cast_impl", cast_impl)
    monkeypatch.setattr(builder, "create_fp_trunc", cast_impl)


Outputs = Tensor | Sequence[Tensor]
Check = Callable[..., None]


@pytest.fixture
def agree() -> Check:
    """Check a form against its definition in float64, outputs and gradients."""

    def check(
        form: Callable[..., Outputs],
        definition: Callable[..., Outputs],
        *inputs: Tensor,
        tolerance: float = 2e-5,
    ) -> None:
        exact = [x.detach().double().requires_grad_() if x.is_floating_point() else x for x in inputs]
        leaves = [x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs]
        found, expected = _results(form, leaves), _results(definition, exact)
        assert len(found) == len(expected)
        for f, e in zip(found, expected, strict=True):
            assert f.shape == e.shape
            error, scale = (f.double() - e.double()).abs().max().item(), max(1.0, e.double().abs().max().item())
            assert error <= tolerance * scale, f"{error} of {scale}"

    return check


def _results(form: Callable[..., Outputs], inputs: list[Tensor]) -> list[Tensor]:
    """What a form gives, and the gradients of a random linear function of it for all floating-point inputs."""
    outputs = form(*inputs)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    moving = [y for y in outputs if y.requires_grad]
    generator = torch.Generator().manual_seed(5)
    probes = [torch.randn(y.shape, generator=generator).to(y.dtype) for y in moving]
    wanted = [x for x in inputs if x.requires_grad]
    return [*(y.detach() for y in outputs), *torch.autograd.grad(moving, wanted, probes)]
