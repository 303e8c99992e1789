"""Tar archives as WebDataset lays them out: the files of a sample share a name up to its first dot."""

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lorbms_fast.dataloader.photograph import Photograph, Place
from lorbms_fast.dataloader.sources.folder import SUFFIXES, files_below
from lorbms_fast.dataloader.sources.listing import Listing, Skipped
from lorbms_fast.errors import UserError

HEADER = 16 << 10
"""Bytes of the longest header that is read: four times the longest path."""


def of_tar(root: Path) -> Listing:
    """The pictures in the uncompressed tar archives below a folder; nothing is unpacked.

    A picture's id is its name in the archive up to the first dot of the last part, with the archive's name before it
    where several have the same. A damaged archive gives the pictures before the damage, and an unusable entry.

    Raises:
        UserError: there is no such folder, it holds no archives, or these hold no pictures.
    """
    archives = files_below(root, frozenset({".tar"}))
    if not archives:
        raise UserError(f"{root} holds no .tar files: unpack compressed ones with gunzip first")
    found: list[tuple[str, Place]] = []
    unusable: list[Skipped] = []
    for archive in archives:
        try:
            for member in _members(root / archive):  # one by one: what comes before damage counts
                if _is_picture(member):
                    found.append((member.name, Place(str(archive), member.offset_data, member.size)))
        except Exception as error:  # tarfile meets strangers' headers with exceptions of every kind
            unusable.append(Skipped(str(archive), "bad", f"is damaged as a tar archive ({error})"))
    if not found:
        first = f", {unusable[0].source} {unusable[0].reason}" if unusable else ""
        raise UserError(f"the {len(archives)} archives in {root} hold no pictures{first}: choose another folder")
    keys = Counter(_key(name) for name, _ in found)
    photographs = [
        Photograph(_key(name) if keys[_key(name)] == 1 else f"{place.path}/{name}", place) for name, place in found
    ]
    return Listing(photographs, unusable)


class _Headers(io.FileIO):
    """A file of which little is read at a time, whatever a header says, and nothing a second time behind its end.

    tarfile reads an extension's text in one piece, as long as its header claims, searches it with patterns that take
    the square of its length, and waits for the end of some texts where a file has ended already.
    """

    ended = False

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= HEADER:
            raise tarfile.ReadError(f"a header claims to be {size:,} bytes long")
        data = super().read(size)
        if self.ended and not data:
            raise tarfile.ReadError("it ends inside a header")
        self.ended = size > 0 and not data
        return data


def _members(archive: Path) -> Iterator[tarfile.TarInfo]:
    """The members of an archive, each further behind than the one before.

    Raises:
        tarfile.TarError: it is damaged.
    """
    length, end = archive.stat().st_size, 0
    with _Headers(archive) as file, tarfile.open(fileobj=file, mode="r:") as members:
        for member in members:
            # A size below zero leads back to members that were read before, and round and round.
            if member.offset_data < end or not 0 <= member.size <= length - member.offset_data:
                raise tarfile.ReadError(f"a file of {member.size:,} bytes begins at byte {member.offset_data:,}")
            end = member.offset_data
            yield member


def _is_picture(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not member.issparse() and Path(member.name).suffix.lower() in SUFFIXES


def _key(name: str) -> str:
    path = Path(name)
    return path.with_name(path.name.split(".")[0] or path.name).as_posix()
