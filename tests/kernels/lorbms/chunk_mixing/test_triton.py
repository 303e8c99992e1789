"""The selection of chunks in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

from lorbms_fast.kernels import lorbms
from lorbms_fast.kernels.lorbms.chunk_mixing import reference
from lorbms_fast.kernels.lorbms.chunk_mixing.triton import ops as in_triton


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("chunks", "size"), [(4, 5), (1, 1), (3, 8)])
def test_selection(agree, monkeypatch, chunks, size):
    monkeypatch.setattr(in_triton, "BLOCK", 4)
    mask = draw(2, chunks, seed=2) > 0
    agree(
        lambda f_ref, f_q: lorbms.mix_chunks(f_ref, f_q, mask, "triton"),
        lambda f_ref, f_q: reference.mix_chunks(f_ref, f_q, mask),
        *(draw(2, chunks, size), draw(2, chunks, size, seed=1)),
    )


def test_what_is_not_taken_is_not_looked_at():
    f_ref, f_q = torch.full((1, 4, 2), torch.nan), torch.ones(1, 4, 2)
    f_ref[0, 1] = 5
    mixed = lorbms.mix_chunks(f_ref, f_q, torch.tensor([[True, False, True, True]]), "triton")
    assert mixed[0, :, 0].tolist() == [1, 5, 1, 1]


def test_two_precisions_give_the_wider(agree):
    mask = torch.tensor([[True, False]])
    f_ref, f_q = draw(1, 2, 3).bfloat16().requires_grad_(), draw(1, 2, 3, seed=1).requires_grad_()
    mixed = lorbms.mix_chunks(f_ref, f_q, mask, "triton")
    assert mixed.dtype == torch.float32
    mixed.sum().backward()
    assert f_ref.grad is not None
    assert f_ref.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(("n", "chunks", "size", "padding"), [(3, 4, 5, 0), (1, 1, 1, 0), (2, 3, 8, 2)])
def test_only_used_candidates_are_there(agree, monkeypatch, n, chunks, size, padding):
    monkeypatch.setattr(in_triton, "BLOCK", 4)
    mask = draw(n, chunks, seed=2) > 0
    codes = draw(n + int(mask.sum()) + padding, chunks, size)
    agree(lambda codes: lorbms.mix_used(codes, mask, "triton"), lambda codes: reference.mix_used(codes, mask), codes)


@pytest.mark.parametrize("mask", [[[False, False]], [[True, True]]])
def test_no_candidate_or_every(agree, mask):
    mask = torch.tensor(mask)
    agree(
        lambda codes: lorbms.mix_used(codes, mask, "triton"),
        lambda codes: reference.mix_used(codes, mask),
        draw(1 + int(mask.sum()) + 1, 2, 3),
    )


def test_opcheck():
    f_ref, f_q, mask = draw(1, 4, 2).requires_grad_(), draw(1, 4, 2, seed=1).requires_grad_(), draw(1, 4, seed=2) > 0
    torch.library.opcheck(in_triton.mix_chunks, (f_ref, f_q, mask))
    torch.library.opcheck(in_triton.mix_used, (draw(3, 4, 2).requires_grad_(), torch.eye(1, 4) > 0))


def test_compiles_without_a_break():
    def function(f_ref, f_q, mask):
        f_mix = lorbms.mix_chunks(f_ref, f_q, mask, "triton")
        return lorbms.mix_chunks(f_mix, f_ref, mask, "triton")

    inputs = draw(1, 4, 2), draw(1, 4, 2, seed=1), draw(1, 4, seed=2) > 0
    assert torch.equal(torch.compile(function, fullgraph=True, backend="aot_eager")(*inputs), function(*inputs))
