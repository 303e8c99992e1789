"""Copies from one layout to another, bit by bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorbms_fast.kernels._common.arrange import LOOPS, arranged, copy_
from tests.kernels.threads import threads

size = st.integers(1, 40)


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(0, 3), channels=size, height=st.integers(0, 40), width=size, more=st.integers(0, 3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]), count=st.integers(1, 2),
)  # fmt: skip
def test_the_same_values(n, channels, height, width, more, dtype, count):
    with threads(count):
        rows = torch.randn(n, channels, height, width).to(dtype)
        lines = arranged(rows, torch.channels_last)
        assert lines.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(lines, rows)
        again = arranged(lines, torch.contiguous_format)
        assert again.is_contiguous()
        assert torch.equal(again, rows)
        wider = torch.zeros(n, height, width, channels + more, dtype=dtype).permute(0, 3, 1, 2)
        copy_(wider[:, :channels], rows)
        assert torch.equal(wider[:, :channels], rows)
        assert not wider[:, channels:].any()


def test_who_copies():
    rows = torch.randn(1, 16, 4, 4)
    if not LOOPS.take_rows(rows):
        pytest.skip("no C++ compiler")
    with torch.profiler.profile() as profile:
        arranged(rows, torch.channels_last)
    assert "lorbms_fast::arrange" in {event.key for event in profile.key_averages()}
