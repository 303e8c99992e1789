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

    def writable(self) -> "Listing":
        """The same, where names that are not Unicode are unusable: no store can hold them.

        Files and members of archives may be called anything; bytes that are no UTF-8 come as lone surrogates.
        """
        photographs, unusable = [], list(self.unusable)
        for photograph in self.photographs:
            name = f"{photograph.place.path} {photograph.id}"
            try:
                name.encode()
                photographs.append(photograph)
            except UnicodeEncodeError:
                shown = photograph.place.path.encode("utf-8", "backslashreplace").decode()
                unusable.append(Skipped(shown, "bad", "has a name that is not UTF-8, or names one"))
        return Listing(photographs, unusable)
