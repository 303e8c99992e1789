"""Random numbers that are functions of a counter, against SplitMix64 written with Python's own integers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast.dataloader import counter_rng

WORD = 2**64
INT64 = st.integers(-(2**63), 2**63 - 1)


def split_mix(key: int, steps: int) -> int:
    """Output number `steps` of SplitMix64 from a state."""
    z = (key + steps * 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def test_the_published_sequence():
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [split_mix(1234567, i) for i in range(1, 5)] == expected
    assert [x % WORD for x in counter_rng.bits(1234567, torch.arange(1, 5)).tolist()] == expected


@given(INT64, st.lists(INT64, min_size=1, max_size=40))
def test_bits_are_split_mix_everywhere(key, counters):
    found = counter_rng.bits(key, torch.tensor(counters)).tolist()
    assert [x % WORD for x in found] == [split_mix(key % WORD, c % WORD) for c in counters]


@given(st.integers(1, 2**31), INT64)
def test_numbers_below_are_the_upper_half_scaled(n, key):
    found = counter_rng.below(n, key, torch.arange(50)).tolist()
    assert found == [(split_mix(key % WORD, i) >> 32) * n >> 32 for i in range(50)]
    assert all(0 <= x < n for x in found)


@pytest.mark.parametrize("seed", [0, 1, -5, 2**80])
def test_numbers_below_ten_come_equally_often(seed):
    counts = torch.bincount(counter_rng.below(10, counter_rng.key(seed, 1), torch.arange(100_000)))
    chi_squared = ((counts - 10_000) ** 2 / 10_000).sum()
    assert 1 < chi_squared < 28  # nine degrees of freedom: outside once in a thousand; the numbers are fixed


def test_keys_differ_by_every_part_and_its_place():
    several = ((0,), (0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 1, 0), (-1, 0), (2**63, 1))
    keys = [counter_rng.key(*parts) for parts in several]
    assert len(set(keys)) == len(keys)


def test_a_permutation_has_all_in_an_order_of_its_own():
    orders = [counter_rng.permutation(1000, counter_rng.key(0, 0, epoch), torch.device("cpu")) for epoch in range(3)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(1000))
    assert (orders[0] == orders[1]).sum() < 10  # one on average
    assert (orders[0] == torch.arange(1000)).sum() < 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make test-gpu")
def test_a_gpu_draws_the_same():
    counters = torch.randint(-(2**62), 2**62, (10_000,))
    assert torch.equal(counter_rng.bits(3, counters.cuda()).cpu(), counter_rng.bits(3, counters))
    gpu = counter_rng.permutation(338_865, 3, torch.device("cuda")).cpu()
    assert torch.equal(gpu, counter_rng.permutation(338_865, 3, torch.device("cpu")))
