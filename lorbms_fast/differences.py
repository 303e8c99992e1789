"""Differences between two trees of settings, field by field."""

from collections.abc import Iterator, Mapping
from typing import Any

_ABSENT = "absent"


def differences(found: Mapping[str, Any], expected: Mapping[str, Any], inside: str = "") -> Iterator[str]:
    """Yield each difference as `model.chunk is 4, not 5`.

    Args:
        found: values by name, trees of them too.
        expected: what they are compared with.
        inside: name of what both are, put before each field's.

    >>> list(differences({"chunk": 4, "layers": (1, 2)}, {"chunk": 5, "layers": [1, 2]}, "model"))
    ['model.chunk is 4, not 5']
    """
    for name in [*found, *(name for name in expected if name not in found)]:
        is_, wanted = found.get(name, _ABSENT), expected.get(name, _ABSENT)
        where = f"{inside}.{name}" if inside else name
        if isinstance(is_, Mapping) and isinstance(wanted, Mapping):
            yield from differences(is_, wanted, where)
        elif _plain(is_) != _plain(wanted):
            yield f"{where} is {_plain(is_)}, not {_plain(wanted)}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
