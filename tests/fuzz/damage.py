"""Damage to bytes and to JSON documents, drawn by a function that chooses (hypothesis's, in the tests)."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

Choose = Callable[[int], int]
"""`choose(n)`: a whole number from 0 to n - 1."""

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 2**63 - 1, 2**63, 2**64 - 1)
"""Where sizes and counts turn over."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 255, 2**31, 2**63, -(2**63) - 1, 10**40, 10**4000),
    *(0.5, -0.0, 1e308, math.nan, math.inf, -math.inf),
    *("", "a", "0", "-1", "nan", "1e999", "..", ".", "/", "../../secret.jpg", "/etc/passwd", "a\0b", "a\nb\x1b[2Jc"),
    *("\ud800", "\u202e", "x" * 5000, "1" * 5000, "true", "images-00000.npy"),
    *([], {}, [[]], [None], {"": None}, [1, "a", {}], {"a": {"b": [0]}}),
)
"""What may stand anywhere in a stranger's JSON."""


def damaged(data: bytes, choose: Choose) -> bytes:
    """Bytes with one to four edits."""
    for _ in range(1 + choose(4)):
        data = _edited(data, choose)
    return data


def _edited(data: bytes, choose: Choose) -> bytes:
    at = choose(len(data) + 1)
    rest = len(data) - at
    kind = choose(6)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + 1 + choose(min(rest, 64) + 1) :]
    if kind == 2:
        return data[:at] + bytes([choose(256)]) * (1 + choose(8)) + data[at:]
    if kind == 3:
        end = at + choose(min(rest, 600) + 1)
        return data[:end] + data[at:]
    width = (1, 2, 4, 8)[choose(4)]
    number = NUMBERS[choose(len(NUMBERS))] if kind == 4 else choose(256)
    written = (number % 256**width).to_bytes(width, ("little", "big")[choose(2)])
    return data[:at] + written + data[at + width :]


def twisted(document: Any, choose: Choose) -> Any:
    """A JSON document with one to three of its parts replaced, left out, doubled, put elsewhere, or another added."""
    document = copy.deepcopy(document)
    for _ in range(1 + choose(3)):
        places = list(_places(document))
        if not places:
            return VALUES[choose(len(VALUES))]
        inside, key = places[choose(len(places))]
        kind = choose(5)
        if kind == 0:
            del inside[key]
        elif kind == 1 and isinstance(inside, dict):
            other = VALUES[choose(len(VALUES))]
            inside[other if isinstance(other, str) else "unknown"] = inside[key]
        elif kind == 1:
            inside.insert(key, copy.deepcopy(inside[key]))
        elif kind == 2:
            elsewhere, name = places[choose(len(places))]
            inside[key] = copy.deepcopy(elsewhere[name])
        else:
            inside[key] = copy.deepcopy(VALUES[choose(len(VALUES))])
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every part of a document, as the dict or list it stands in and its key there."""
    if isinstance(document, dict | list):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from _places(document[key])
