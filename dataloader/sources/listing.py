"""What a source gives: the photographs it names."""

from dataclasses import dataclass, field
from typing import Literal

from lorbms_fast.dataloader.photograph import Photograph


@dataclass(frozen=True)
class Skipped:
    """A photograph that is left out."""

    source: str
    kind: Literal["bad", "small"]
    reason: str


@dataclass(frozen=True)
class Listing:
    """Photographs with ids of their own, and the entries that name none."""

    photographs: list[Photograph]
    unusable: list[Skipped] = field(default_factory=list)
