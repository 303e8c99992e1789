"""Random numbers without a state: functions of a key and a counter, the same on every device.

The output of SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014) after any
number of steps is a function of that number. So whoever needs the millionth draw computes it and no other, and a GPU
draws the same as a CPU.
"""

import hashlib

import torch
from torch import Tensor

_STEP = 0x9E3779B97F4A7C15 - 2**64  # as int64s
_FACTORS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))


def key(*parts: int) -> int:
    """Make a key for numbers that depend on several things: seed, purpose, number of the pass."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def bits(key: int, counter: Tensor) -> Tensor:
    """Draw 64 bits for each int64 counter, as int64 of the same shape; different counters get different bits."""
    z = counter * _STEP + key
    for shift, factor in _FACTORS:
        z = (z ^ _right(z, shift)) * factor
    return z ^ _right(z, 31)


def below(n: int, key: int, counter: Tensor) -> Tensor:
    """Draw an integer 0 to n - 1 for each counter, n at most 2^31; int64, of the counter's shape.

    >>> below(6, key(0, 1), torch.arange(4)).tolist()
    [5, 5, 3, 2]
    """
    return (_right(bits(key, counter), 32) * n) >> 32


def permutation(count: int, key: int, device: torch.device) -> Tensor:
    """Draw an order of 0 to count - 1, int64: sorted by numbers that are never equal.

    >>> permutation(5, key(0, 0), torch.device("cpu")).tolist()
    [2, 4, 1, 0, 3]
    """
    return bits(key, torch.arange(count, device=device)).argsort()


def _right(z: Tensor, shift: int) -> Tensor:
    """Shifted right as an unsigned number: torch's own shift repeats the sign."""
    return (z >> shift) & ((1 << (64 - shift)) - 1)
