"""The photographs that a source names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from lorbms_fast.dataloader.image_file import ByteRange, Photograph, shown


@dataclass(frozen=True)
class Skipped:
    """A file or an entry that is left out."""

    source: str
    kind: Literal["bad", "small", "beside"]
    """bad: cannot be read; small: has a side below the recipe's; beside: is a picture, but no photograph of the set,
    such as a sample's mask."""
    reason: str


@dataclass(frozen=True)
class Listing:
    """Photographs with ids of their own, and what was left out while they were listed."""

    photographs: list[Photograph]
    unusable: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Lines for the user: what else decided what is listed."""
    annotations: Path | None = None
    """The annotation file that was read."""

    def writable(self) -> "Listing":
        """Move photographs whose names are not Unicode (lone surrogates) to the unusable: no store can hold them."""
        photographs, unusable = [], list(self.unusable)
        for photograph in self.photographs:
            name = f"{photograph.place.path} {photograph.id}"
            try:
                name.encode()
                photographs.append(photograph)
            except UnicodeEncodeError:
                readable = photograph.place.path.encode("utf-8", "backslashreplace").decode()
                unusable.append(Skipped(readable, "bad", "has a name that is not UTF-8, or names one"))
        return replace(self, photographs=photographs, unusable=unusable)


def first_of(left_out: Sequence[Skipped]) -> str:
    """Write the first of some entries for the middle of a message, and the number of the others; nothing of none."""
    more = f", and {len(left_out) - 1:,} more" if len(left_out) > 1 else ""
    return "".join(f", {shown(one.source)} {one.reason}{more}" for one in left_out[:1])


class Named(NamedTuple):
    """A photograph before its id is decided."""

    short: str
    """Its id if no other photograph has that name."""
    full: str
    """Its id otherwise; unique."""
    place: ByteRange
    boxes: int = 0
    size: tuple[int, int] | None = None


def identified(found: Sequence[Named]) -> list[Photograph]:
    """Give every photograph an id of its own: the short name, unless another photograph has that name, short or full.

    >>> files = ["a.jpg", "a.jpeg", "a.jpg.jpg", "b.jpg"]
    >>> [one.id for one in identified([Named(file.rpartition(".")[0], file, ByteRange(file)) for file in files])]
    ['a.jpg', 'a.jpeg', 'a.jpg.jpg', 'b']
    """
    shorts, fulls = Counter(one.short for one in found), {one.full for one in found}
    return [
        Photograph(short if shorts[short] == 1 and (short == full or short not in fulls) else full, place, boxes, size)
        for short, full, place, boxes, size in found
    ]
