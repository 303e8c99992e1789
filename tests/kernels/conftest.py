"""Tests of Triton forms run in the interpreter, against definitions in float64; whatever kernels do not write is NaN.

A program of a grid takes some hundredths of a second there: tiny shapes, few programs.
"""

from collections.abc import Callable, Iterator, Sequence
from zlib import crc32

import pytest
import torch
from torch import Tensor

from lorbms_fast.kernels._common import amx_conv
from lorbms_fast.kernels._common.cpp import vectors
from lorbms_fast.kernels._common.dispatch import HAS_TRITON
from lorbms_fast.kernels._common.winograd import cpp as winograd

if HAS_TRITON:
    from tests.kernels.interpreter import interpreted
collect_ignore_glob = [] if HAS_TRITON else ["*_triton.py"]


@pytest.fixture(autouse=True)
def in_the_interpreter(request: pytest.FixtureRequest) -> Iterator[None]:
    """Prepare the tests of Triton forms, which are in files of this name; all others run kernels natively, if any."""
    if request.path.stem.endswith("_triton"):
        request.getfixturevalue("poisoned")
        with interpreted(seed=crc32(request.node.nodeid.encode())):
            yield
    else:
        yield


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fill new tensors with NaN (integers with their greatest value) before kernels write to them."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def no_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let loops multiply bfloat16 also where the processor has AMX."""
    forget = winograd.pays.cache_clear
    forget()
    for module in (vectors, amx_conv):
        monkeypatch.setattr(module, "has_amx", lambda: False)
    yield
    forget()


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
