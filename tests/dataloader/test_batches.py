"""Batches are functions of their number."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.utils.data import DataLoader

from lorbms_fast.dataloader.batches import CPU, NeighbourBatches
from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.pixels import to_float_nchw, to_uint8_nhwc
from lorbms_fast.dataloader.prefetch import Prefetcher
from lorbms_fast.errors import UserError
from lorbms_fast.mixing import mixing_mask, padded_candidates, used_candidates


@pytest.fixture
def source(store):
    return NeighbourBatches(store, batch_size=5, seed=0, neighbours=NeighbourTable.load(store), tau=50.0)


def test_pixels_survive_both_ways():
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    there = to_float_nchw(every)
    assert (there.min(), there.max()) == (-1, 1)
    assert np.array_equal(to_uint8_nhwc(there), every)


def test_a_pass_visits_every_image_once_in_a_new_order(source):
    passes = [np.concatenate([source.rows(4 * epoch + i) for i in range(4)]) for epoch in (0, 1)]
    assert all(len(set(rows)) == 20 for rows in passes)
    assert not np.array_equal(*passes)


def test_batches_do_not_depend_on_what_was_read_before(source):
    first = source.batch(7)
    source.batch(3)
    assert all(torch.equal(a, b) for a, b in zip(first, source.batch(7), strict=True))
    assert not torch.equal(first.I_ref, replace(source, seed=1).batch(7).I_ref)


def test_images_candidates_and_mask_belong_together(source):
    rows, ranks = np.array([3, 8]), np.array([[0, 1, 2, 3], [9, 8, 7, 6]])
    batch = source.of_rows(rows, ranks)
    table, images = source.neighbours, source.store.images
    distances = torch.zeros(2, 4)
    for n in range(2):
        assert np.array_equal(to_uint8_nhwc(batch.I_ref[n]), images[rows[n]])
        for q in range(4):
            assert np.array_equal(to_uint8_nhwc(batch.I_q[q, n]), images[table.rows[rows[n], q, ranks[n, q]]])
            distances[n, q] = float(table.distances[rows[n], q, ranks[n, q]])
    assert torch.equal(batch.mask, mixing_mask(distances, 50.0))


def test_how_candidates_are_drawn(source):
    ranks = source._ranks(range(200), CPU)
    assert ranks.shape == (200, 5, 4)
    assert set(ranks.flatten().tolist()) == set(range(10))
    assert (ranks != ranks[..., :1]).any()
    assert not torch.equal(ranks[0], ranks[1])
    shared = replace(source, candidates="shared-rank")._ranks(range(200), CPU)
    assert set(shared.flatten().tolist()) == set(range(9))
    assert (shared == shared[..., :1]).all()


@pytest.mark.parametrize("numbers", [range(3, 4), range(0, 9), range(2, 30, 7)])
@pytest.mark.parametrize("candidates", ["independent", "shared-rank"])
def test_many_draws_at_once_are_those_of_their_numbers(source, numbers, candidates):
    source = replace(source, candidates=candidates)
    rows, mask = source.drawing(CPU)(numbers)
    assert (rows.shape, mask.shape) == ((len(numbers), 5, 5), (len(numbers), 5, 4))
    for i, number in enumerate(numbers):
        alone = source.draw(number)
        assert torch.equal(rows[i], alone.rows)
        assert torch.equal(mask[i], alone.mask)
        assert np.array_equal(alone.rows[0], source.rows(number))
        assert torch.equal(mask[i], source.batch(number).mask)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make test-gpu")
def test_a_gpu_draws_the_same_batches(source):
    on_gpu_and_host = (source.drawing(device)(range(40)) for device in (torch.device("cuda"), CPU))
    for on_gpu, on_host in zip(*on_gpu_and_host, strict=True):
        assert torch.equal(on_gpu.cpu(), on_host)


@given(arrays(bool, st.tuples(st.integers(1, 6), st.just(4))), st.integers(0, 3))
def test_padded_candidates_are_the_used_and_the_first_again(mask, extra):
    mask = torch.from_numpy(mask)
    used = used_candidates(mask)
    size = used.shape[1] + extra
    assume(used.shape[1] > 0 and size <= mask.numel())
    padded = padded_candidates(torch.stack([mask, mask]), size)
    assert padded.shape == (2, 2, size)
    for found in padded:
        assert torch.equal(found[:, : used.shape[1]], used)
        assert (found[:, used.shape[1] :] == used[:, :1]).all()


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_nothing_is_refused(size, source):
    with pytest.raises(UserError, match=f"--batch-size {size} makes no batches"):
        replace(source, batch_size=size)


def test_what_was_drawn_from_can_be_sent(source):
    expected = source.batch(1).I_ref
    assert torch.equal(pickle.loads(pickle.dumps(source)).batch(1).I_ref, expected)


def test_threads_may_ask_at_once():
    """Each expects other numbers next, and cancels what nobody waits for."""
    squared = Prefetcher(lambda number: time.sleep(0.001) or number**2, ahead=2)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(squared, range(0, 400, 2))) == [number**2 for number in range(0, 400, 2)]


def test_too_large_a_batch_is_refused(source):
    with pytest.raises(UserError, match="24 images: too few for a batch of 25"):
        replace(source, batch_size=25)


def test_a_pass_is_an_iteration(source):
    first = list(source)
    assert len(first) == source.batches_per_epoch == 4
    assert torch.equal(first[3].I_q, source.batch(3).I_q)
    assert torch.equal(next(source.epoch(2)).I_ref, source.batch(8).I_ref)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_a_data_set_to_pytorch(workers, source):
    """By other processes, in any order, of any pass."""
    assert len(source) == source.batches_per_epoch
    for sampler in (None, [2, 0], range(4, 8)):
        loader = DataLoader(source, batch_size=None, sampler=sampler, num_workers=workers)
        for number, batch in zip(range(4) if sampler is None else sampler, loader, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch, source.batch(number), strict=True))
    with pytest.raises(IndexError, match="batch -1: they are counted from 0"):
        source[-1]


def test_other_libraries_take_batches_without_a_copy(source):
    batch = source.batch(0)
    for tensor in batch:
        shared = np.from_dlpack(tensor)
        assert shared.shape == tuple(tensor.shape)
        assert shared.ctypes.data == tensor.data_ptr()


def test_batches_made_ahead_are_the_same(source):
    ahead = replace(source, ahead=2)
    for number in (0, 1, 2, 7, 8, 0, 3):
        assert all(torch.equal(a, b) for a, b in zip(ahead.batch(number), source.batch(number), strict=True))


def test_reading_ahead_makes_the_next_and_forgets_the_rest():
    made = []

    def make(number):
        made.append(number)
        if number == 5:
            raise ValueError("five")
        return number * number

    ahead = Prefetcher(make, 2)
    assert [ahead(number) for number in (0, 1, 2)] == [0, 1, 4]
    assert sorted(made) <= [0, 1, 2, 3, 4]
    assert ahead(40) == 1600
    assert ahead(2) == 4
    with pytest.raises(ValueError, match="five"):
        ahead(5)
    assert ahead(6) == 36


def test_unknown_candidates_are_refused(store):
    with pytest.raises(ValueError, match="candidates 'nearest': choose independent or shared-rank"):
        NeighbourBatches(store, 5, 0, neighbours=NeighbourTable.load(store), tau=50.0, candidates="nearest")
