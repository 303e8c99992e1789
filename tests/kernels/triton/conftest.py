"""Kernels in Triton's interpreter (the root conftest switches it on), where memory nobody wrote is NaN."""

import numpy as np
import pytest
import torch

# Where Triton cannot be had there is nothing here to collect; everything else is tested without it.
try:
    import triton.language as tl
    from triton.runtime import interpreter
except ModuleNotFoundError:
    collect_ignore_glob = ["test_*.py"]
else:

    @pytest.fixture(autouse=True)
    def bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
        """Triton 3.9's interpreter multiplies the bits of bfloat16 as if they were integers: widen them first."""
        dot = interpreter.InterpreterBuilder.create_dot

        def widened(handle):
            if handle.dtype.scalar != tl.bfloat16:
                return handle
            bits = handle.data.astype(np.uint32) << 16
            return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

        def create_dot(self, a, b, *rest):
            return dot(self, widened(a), widened(b), *rest)

        monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """New tensors are full of NaN until somebody writes them."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    assert torch.ones(1).new_empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)
