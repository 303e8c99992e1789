"""Differences between two trees of settings, field by field."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lorbms_fast.errors import UserError

_ABSENT = "absent"


def differences(found: Mapping[str, Any], expected: Mapping[str, Any], inside: str = "") -> Iterator[str]:
    """Yield each difference of two trees of values by name; `inside` is put before each field's name.

    >>> list(differences({"chunk": 4, "layers": (1, 2)}, {"chunk": 5, "layers": [1, 2]}, "model"))
    ['model.chunk is 4, not 5']
    """
    for where, is_, wanted in changes(found, expected, inside):
        yield f"{where} is {_plain(is_)}, not {_plain(wanted)}"


def changes(found: Mapping[str, Any], expected: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the name and the two values of each difference."""
    for name in [*found, *(name for name in expected if name not in found)]:
        is_, wanted = found.get(name, _ABSENT), expected.get(name, _ABSENT)
        where = f"{inside}.{name}" if inside else name
        if isinstance(is_, Mapping) and isinstance(wanted, Mapping):
            yield from changes(is_, wanted, where)
        elif _plain(is_) != _plain(wanted):
            yield where, is_, wanted


def of_another_version(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> UserError:
    """Say of a file of a run's how its format differs."""
    return UserError(
        f"{path} is of another version: {'; '.join(differences(found, expected))}; go on with the release of "
        "lorbms-fast that wrote it, or begin a new run"
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
