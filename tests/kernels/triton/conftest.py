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
    def bfloat16_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
        """Triton 3.9's interpreter multiplies bfloat16's bits as integers, and cuts to it instead of rounding."""
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


@pytest.fixture(autouse=True)
def poisoned_memory():
    """New tensors are full of NaN until somebody writes them."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    assert torch.ones(1).new_empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)
