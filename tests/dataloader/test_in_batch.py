"""Candidates from inside the batch, by brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast.dataloader.in_batch import (
    Halves,
    NearestInBatch,
    distances_between,
    nearest_in_batch,
    random_mask,
)
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.mixing import threshold_mask


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "chunks"), [(2, 4), (5, 4), (4, 16)])
def test_the_nearest_code_is_the_candidate(n, chunks):
    """By brute force, pair by pair: distances are those of the codes, whatever the pixels are."""
    images, codes = randn(n, 3, 8, 8, seed=0), randn(n, chunks, 3, seed=n)
    side = math.isqrt(chunks)
    of_quadrant = [
        [y * side + x for y in range(side) for x in range(side) if (2 * y // side, 2 * x // side) == (a, b)]
        for a in (0, 1)
        for b in (0, 1)
    ]
    tau = 2.0 * chunks
    batch = nearest_in_batch(images, codes, tau)
    distances = torch.zeros(n, 4)
    for q, of_tile in enumerate(of_quadrant):
        for i in range(n):
            others = {j: ((codes[i, of_tile] - codes[j, of_tile]) ** 2).sum().item() for j in range(n) if j != i}
            best = min(others, key=others.get)
            distances[i, q] = others[best]
            assert torch.equal(batch.I_q[q, i], images[best])
            assert distances_between(codes)[q, i, best].item() == pytest.approx(others[best], rel=1e-5)
    torch.testing.assert_close(batch.mask, threshold_mask(distances, tau))
    assert torch.equal(nearest_in_batch(images, codes, None).mask, threshold_mask(distances, distances.median()))


def test_one_tile_stays_and_none_need_go():
    images, codes = randn(3, 3, 8, 8, seed=0), randn(3, 4, 3, seed=1)
    all_near = nearest_in_batch(images, codes, 1e9)
    assert all_near.mask.sum(1).tolist() == [3, 3, 3]
    none_near = nearest_in_batch(images, codes, 0.0)
    assert not none_near.mask.any()


def test_halves_are_mixed_with_each_other(store: ImageStore):
    source = Halves(store, batch_size=6, seed=0, tiles=9)
    rows, batch = source.rows(2), source.batch(2)
    assert torch.equal(batch.I_ref, source.images(rows[:3]))
    assert torch.equal(batch.I_q, source.images(rows[3:])[None])
    assert batch.mask.shape == (3, 9)
    assert torch.equal(batch.mask, source.batch(2).mask)
    assert source.sample(2).mask.shape == (2, 9)


def test_a_batch_is_complete_once_its_codes_are_known(store: ImageStore):
    source = NearestInBatch(store, batch_size=4, seed=0)
    batch = source.batch(3)
    assert torch.equal(batch.I_ref, NearestInBatch(store, 4, 0, ahead=2).batch(3).I_ref)
    assert not batch.mask.any()
    complete = source.complete(batch, lambda images: images.mean(3).unflatten(2, (4, -1)).mean(3).transpose(1, 2))
    assert complete.I_q.shape == (4, 4, 3, 64, 64)
    assert complete.mask.any()
    assert len(source.sample(2).I_ref) == 4


@given(st.integers(1, 40), st.integers(2, 16), st.integers(0, 99))
def test_random_masks_replace_some_and_not_all(n, tiles, seed):
    mask = random_mask(np.random.Generator(np.random.Philox(seed)), n, tiles)
    assert mask.shape == (n, tiles)
    assert mask.any(1).all()
    assert not mask.all(1).any()


def test_mistakes(store: ImageStore):
    with pytest.raises(UserError, match="no halves to mix: use an even one"):
        Halves(store, batch_size=3, seed=0, tiles=4)
    with pytest.raises(UserError, match="use 2 or more"):
        NearestInBatch(store, batch_size=1, seed=0)
    with pytest.raises(UserError, match="too few for a batch of 26"):
        Halves(store, batch_size=26, seed=0, tiles=4)
