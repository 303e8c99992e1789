"""Fused forms against their definitions in float64, outputs and gradients: for the tests of each operation."""

import torch
from hypothesis import settings
from hypothesis import strategies as st

size = st.integers(1, 6)
fast = settings(deadline=None, max_examples=30)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def assert_forms_agree(operation, wanted, tolerance=1e-10):
    """`operation(impl)` gives a tensor or several; compare them and their gradients for `wanted`."""
    found = {}
    for impl in ("reference", "fused"):
        outputs = operation(impl)
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        moving = [y for y in outputs if y.requires_grad]
        loss = sum((y * draw(*y.shape, seed=i).detach()).sum() for i, y in enumerate(moving))
        found[impl] = [*outputs, *torch.autograd.grad(loss, wanted)]
    for reference, fused in zip(found["reference"], found["fused"], strict=True):
        torch.testing.assert_close(fused, reference, rtol=tolerance, atol=tolerance)


def results(outputs, wanted):
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    return [*outputs, *torch.autograd.grad(sum((y * (i + 2)).sin().sum() for i, y in enumerate(outputs)), wanted)]
