"""Tar archives as WebDataset lays them out: the files of a sample share a name up to its first dot."""

import tarfile
from collections import Counter
from pathlib import Path

from lorbms_fast.dataloader.photograph import Photograph, Place
from lorbms_fast.dataloader.sources.folder import SUFFIXES, files_below
from lorbms_fast.dataloader.sources.listing import Listing, Skipped
from lorbms_fast.errors import UserError


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
            with tarfile.open(root / archive, "r:") as members:
                for member in members:  # one by one: what comes before damage counts
                    if _is_picture(member):
                        found.append((member.name, Place(str(archive), member.offset_data, member.size)))
        except (tarfile.TarError, OSError) as error:
            unusable.append(Skipped(str(archive), "bad", f"is damaged as a tar archive ({error})"))
    if not found:
        first = f": {unusable[0].source} {unusable[0].reason}" if unusable else ""
        raise UserError(f"the {len(archives)} archives in {root} hold no pictures{first}")
    keys = Counter(_key(name) for name, _ in found)
    photographs = [
        Photograph(_key(name) if keys[_key(name)] == 1 else f"{place.path}/{name}", place) for name, place in found
    ]
    return Listing(photographs, unusable)


def _is_picture(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not member.issparse() and Path(member.name).suffix.lower() in SUFFIXES


def _key(name: str) -> str:
    path = Path(name)
    return path.with_name(path.name.split(".")[0] or path.name).as_posix()
