"""Batches out of stores: the C++ loop and torch's operations against the definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorbms_fast.cpp import native_loops
from lorbms_fast.kernels import lorbms
from lorbms_fast.kernels.lorbms.batch_assembly import cpp

size = st.integers(2, 9)
FORMS = ("loops", "no loops", "reference")
DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)


def image_by_image(images, rows, dtype):
    pictures = [images[row].float() * (2 / 255) - 1 for row in rows.flatten().tolist()]
    return torch.stack(pictures).to(dtype).permute(0, 3, 1, 2).unflatten(0, rows.shape)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 4), size, size, st.booleans(), st.sampled_from(DTYPES), st.sampled_from(FORMS))
def test_forms_are_the_images_one_by_one(n, height, width, channels_last, dtype, form):
    generator = torch.Generator().manual_seed(n)
    images = torch.randint(256, (6, height, width, 3), dtype=torch.uint8, generator=generator)
    rows = torch.randint(6, (n + 1, 5), generator=generator).T  # not contiguous
    impl = "reference" if form == "reference" else "fused"
    with native_loops(form == "loops"):
        found = lorbms.assemble_batch(images, rows, dtype, channels_last, impl=impl)
    expected = image_by_image(images, rows, dtype)
    assert torch.equal(found, expected)
    assert found.dtype == dtype
    assert found[0, 0].stride() == (expected if channels_last else expected.contiguous())[0, 0].stride()


def test_every_byte_in_every_dtype():
    images = torch.arange(256 * 3).view(256, 1, 1, 3).to(torch.uint8)
    for dtype in DTYPES:
        rows = torch.arange(256)
        assert torch.equal(*(lorbms.assemble_batch(images, rows, dtype=dtype, impl=i) for i in ("fused", "reference")))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_one_row_without_dimensions_gives_one_image(form, channels_last):
    images, row = torch.randint(256, (3, 4, 5, 3), dtype=torch.uint8), torch.tensor(2)
    with native_loops(form == "loops"):
        impl = "reference" if form == "reference" else "fused"
        found = lorbms.assemble_batch(images, row, channels_last=channels_last, impl=impl)
    assert torch.equal(found, image_by_image(images, row[None], torch.float32)[0])


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("row", [2, -1])
def test_rows_that_are_not_there(row, loops):
    with native_loops(loops), pytest.raises(IndexError):
        lorbms.assemble_batch(torch.zeros(2, 1, 1, 3, dtype=torch.uint8), torch.tensor([0, row]))


@pytest.mark.parametrize("form", FORMS)
def test_a_store_without_images_has_no_rows(form):
    empty, impl = torch.zeros(0, 4, 5, 3, dtype=torch.uint8), "reference" if form == "reference" else "fused"
    with native_loops(form == "loops"):
        assert lorbms.assemble_batch(empty, torch.zeros(0, 2, dtype=torch.int64), impl=impl).shape == (0, 2, 3, 4, 5)
        with pytest.raises(IndexError, match="2 rows of a store without images"):
            lorbms.assemble_batch(empty, torch.tensor([0, 1]), impl=impl)


def test_images_anywhere_in_memory():
    images = [torch.randint(256, (4, 5, 3), dtype=torch.uint8) for _ in range(3)]
    if not cpp.runs(torch.float32):
        pytest.skip("no compiler")
    addresses = torch.tensor([images[i].data_ptr() for i in (2, 0, 2)])
    expected = lorbms.assemble_batch(torch.stack(images), torch.tensor([2, 0, 2]), impl="reference")
    assert torch.equal(cpp.assemble_at(addresses, (4, 5)), expected)
