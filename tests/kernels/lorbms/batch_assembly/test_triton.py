"""Batch assembly in Triton's interpreter."""

import pytest
import torch

from lorbms_fast.kernels import lorbms
from lorbms_fast.kernels.lorbms.batch_assembly.triton import ops as in_triton

IMAGES = torch.arange(4 * 3 * 5 * 3, dtype=torch.uint8).view(4, 3, 5, 3)
ROWS = torch.tensor([[3, 0, 2]])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(in_triton, "BLOCK", 32)


@pytest.mark.parametrize("channels_last", [False, True])
def test_against_the_definition(channels_last):
    found, exact = (
        lorbms.assemble_batch(IMAGES, ROWS, channels_last=channels_last, impl=impl) for impl in ("triton", "reference")
    )
    assert found.shape == (1, 3, 3, 3, 5)
    assert found.stride() == exact.stride()
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype):
    found, exact = (lorbms.assemble_batch(IMAGES, ROWS, dtype=dtype, impl=impl) for impl in ("triton", "reference"))
    assert found.dtype == dtype
    assert (found.float() - exact.float()).abs().max() <= torch.finfo(dtype).eps


def test_rows_that_are_not_there_are_nan():
    batch = lorbms.assemble_batch(IMAGES, torch.tensor([4, 1, -1]), impl="triton")
    assert batch.isnan().flatten(1).all(1).tolist() == [True, False, True]


def test_opcheck():
    torch.library.opcheck(in_triton.assemble_batch, (IMAGES, ROWS, torch.float32, True))


def test_compiles_without_a_break():
    def function(rows):
        return lorbms.assemble_batch(IMAGES, rows, impl="triton") + 1

    assert torch.equal(torch.compile(function, fullgraph=True, backend="aot_eager")(ROWS), function(ROWS))
