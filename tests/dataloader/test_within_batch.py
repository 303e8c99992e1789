"""Candidates from inside the batch, by brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.dataloader.within_batch import Halves, NearestInBatch, nearest_in_batch, random_mask
from lorbms_fast.errors import UserError
from lorbms_fast.mixing import mixing_mask


@pytest.mark.parametrize("n", [2, 5])
def test_nearest_quadrants(n):
    images = torch.rand(n, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    corners = [(slice(a, a + 4), slice(b, b + 4)) for a in (0, 4) for b in (0, 4)]
    batch = nearest_in_batch(images, tau=3.0)
    distances = torch.zeros(n, 4, dtype=torch.float64)
    for q, (rows, columns) in enumerate(corners):
        for i in range(n):
            others = {
                j: ((images[i, :, rows, columns] - images[j, :, rows, columns]) ** 2).sum().item()
                for j in range(n)
                if j != i
            }
            best = min(others, key=others.get)
            distances[i, q] = others[best]
            assert torch.equal(batch.I_q[q, i], images[best])
    assert torch.equal(batch.mask, mixing_mask(distances, 3.0))
    assert torch.equal(nearest_in_batch(images, None).mask, mixing_mask(distances, distances.median()))


def test_halves_are_mixed_with_each_other(store: ImageStore):
    source = Halves(store, batch_size=6, seed=0, tiles=9)
    rows, batch = source.rows(2), source.batch(2)
    assert torch.equal(batch.I_ref, source.images(rows[:3]))
    assert torch.equal(batch.I_q, source.images(rows[3:])[None])
    assert batch.mask.shape == (3, 9)
    assert torch.equal(batch.mask, source.batch(2).mask)
    assert source.sample(2).mask.shape == (2, 9)


def test_batches_are_functions_of_their_number(store: ImageStore):
    source = NearestInBatch(store, batch_size=4, seed=0)
    assert torch.equal(source.batch(3).I_q, NearestInBatch(store, 4, 0, ahead=2).batch(3).I_q)
    assert source.sample(2).I_q.shape == (4, 2, 3, 64, 64)


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
