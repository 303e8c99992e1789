"""Processes find each other, and not those that died before them."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from lorbms_fast.engine.distributed import agreed_name
from lorbms_fast.errors import UserError

SECOND = timedelta(seconds=1)


def names(store, size, delays, patience=10 * SECOND):
    """What each process of a group calls it; they begin after their delays, those of None never."""

    def start(rank):
        time.sleep(delays[rank])
        return agreed_name(store, rank, size, patience)

    with ThreadPoolExecutor(size) as pool:
        started = [pool.submit(start, rank) for rank in range(size) if delays[rank] is not None]
        return [future.result() for future in started]


@pytest.mark.parametrize("first", [0, 1, 2])
def test_each_group_has_a_name_of_its_own(first):
    store, seen = dist.HashStore(), set()
    rng = random.Random(first)
    for _ in range(4):
        delays = [rng.uniform(0, 0.1) for _ in range(3)]
        delays[first] = 0.0  # who comes first finds what the last group left
        found = names(store, 3, delays)
        assert len(set(found)) == 1
        assert found[0] not in seen
        seen.add(found[0])


@pytest.mark.parametrize("died", [0, 1, 2])
def test_a_process_that_died_while_the_group_began_is_not_taken_for_the_new_one(died):
    store = dist.HashStore()
    delays = [None if rank == died else 0.0 for rank in range(3)]
    with pytest.raises(UserError):
        names(store, 3, delays, SECOND / 5)
    for late in range(3):
        assert len(set(names(store, 3, [0.1 * (rank == late) for rank in range(3)]))) == 1


def test_who_is_missing_is_named():
    with pytest.raises(UserError, match=r"process 0 waited 0\.1 s for process 1, 2 of 3 to start"):
        agreed_name(dist.HashStore(), 0, 3, SECOND / 10)
    with pytest.raises(UserError, match=r"process 2 waited 0\.1 s for process 0 of 3 to start"):
        agreed_name(dist.HashStore(), 2, 3, SECOND / 10)


def test_another_number_of_processes_goes_on():
    store = dist.HashStore()
    assert len(set(names(store, 3, [0.0] * 3))) == 1
    assert len(set(names(store, 2, [0.1, 0.0]))) == 1
