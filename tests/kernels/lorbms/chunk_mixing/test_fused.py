"""Chunk mixing against the definition in float64, outputs and gradients."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast.kernels import lorbms
from tests.kernels.forms import draw, fast, size


def test_mix_chunks_takes_the_masked_ones():
    f_ref, f_q = torch.zeros(1, 4, 2), torch.ones(1, 4, 2)
    mixed = lorbms.mix_chunks(f_ref, f_q, torch.tensor([[False, True, False, True]]))
    assert mixed[0, :, 0].tolist() == [0, 1, 0, 1]


@fast
@given(st.integers(1, 5), size, size, st.integers(0, 2))
def test_mix_used_is_mix_chunks_of_those_in_use(n, chunks, width, padding):
    mask = draw(n, chunks, seed=2) > 0
    f_ref, f_q = draw(n, chunks, width), draw(n, chunks, width, seed=1)
    used = [torch.zeros(chunks, width, dtype=torch.float64).index_put((c,), f_q[s, c]) for c, s in mask.T.nonzero()]
    codes = torch.stack([*f_ref, *used, *[torch.full((chunks, width), torch.nan, dtype=torch.float64)] * padding])
    found, expected = lorbms.mix_used(codes, mask), lorbms.mix_chunks(f_ref, f_q, mask)
    assert torch.equal(found, expected)
    probe = draw(n, chunks, width, seed=3).detach()
    wanted = [f_ref, f_q]
    for f, e in zip(
        torch.autograd.grad((found * probe).sum(), wanted, allow_unused=True),
        torch.autograd.grad((expected * probe).sum(), wanted),
        strict=True,
    ):
        assert torch.equal(torch.zeros_like(e) if f is None else f, e)
