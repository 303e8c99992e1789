"""Draws made ahead are those of their numbers, wherever a run begins and however its processes share them."""

import pytest
import torch

from lorbms_fast.engine import draw_queue
from lorbms_fast.engine.draw_queue import DrawQueue, unpacked
from lorbms_fast.mixing import padded_candidates
from lorbms_fast.training.setup import batch_source
from tests.conftest import TINY

CPU = torch.device("cpu")


@pytest.mark.parametrize("begin", [0, 3, 4, 9])
@pytest.mark.parametrize(("rank", "processes", "updates"), [(0, 1, 1), (1, 3, 1), (1, 2, 4)])
def test_every_iteration_finds_its_own(begin, rank, processes, updates, store, monkeypatch):
    monkeypatch.setattr(draw_queue, "AHEAD", 4)
    source, n = batch_source(TINY, store), TINY.batch_size
    calls = []

    def drawing(numbers):
        calls.append(len(numbers) // updates)
        return source.drawing(CPU)(numbers)

    ahead = DrawQueue(drawing, n, updates, CPU)
    for iteration in range(begin, begin + 14):
        first = 100 + (iteration - begin) * processes * updates + rank
        numbers = range(first, first + updates * processes, processes)
        used = ahead.ready(iteration, numbers)
        draws = [source.draw(number) for number in numbers]
        assert used == max(int(draw.mask.sum()) for draw in draws)
        for slot, draw in zip(ahead.slots[iteration % len(ahead.slots)], draws, strict=True):
            rows, mask, candidates = unpacked(slot, n, used)
            assert torch.equal(rows, draw.rows)
            assert torch.equal(mask, draw.mask)
            assert torch.equal(candidates, padded_candidates(draw.mask, used))
    assert calls == [4 - begin % 4] + [4] * (len(calls) - 1)
    assert len(calls) == 2 + (begin % 4 + 13) // 4


def test_a_jump_draws_anew(store):
    source = batch_source(TINY, store)
    ahead = DrawQueue(source.drawing(CPU), TINY.batch_size, 1, CPU)
    for iteration, number in ((0, 0), (1, 1), (70, 70), (71, 9), (2, 2)):
        ahead.ready(iteration, range(number, number + 1))
        rows, *_ = unpacked(ahead.slots[iteration % len(ahead.slots), 0], TINY.batch_size, 1)
        assert torch.equal(rows, source.draw(number).rows)
