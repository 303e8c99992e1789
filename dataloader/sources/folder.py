"""Any folder of photographs."""

import os
from collections import Counter
from pathlib import Path

from lorbms_fast.dataloader.photograph import Photograph, Place
from lorbms_fast.dataloader.sources.listing import Listing
from lorbms_fast.errors import UserError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Endings, in lower case, that files of the formats that are read have."""


def of_folder(root: Path) -> Listing:
    """Every picture below a folder, by file name ending; the path without ending is its id.

    Raises:
        UserError: there is no such folder, a folder cannot be read, or no pictures are in it.
    """
    found = files_below(root, SUFFIXES)
    if not found:
        raise UserError(f"{root} holds no photographs: files with endings {' '.join(sorted(SUFFIXES))} are looked for")
    stems = Counter(path.with_suffix("") for path in found)
    return Listing(
        [
            Photograph((path if stems[path.with_suffix("")] > 1 else path.with_suffix("")).as_posix(), Place(str(path)))
            for path in found
        ]
    )


def files_below(root: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files below a folder that end in one of `suffixes`, relative to it, in order.

    Raises:
        UserError: there is no such folder, or a folder cannot be read.
    """
    if not root.is_dir():
        raise UserError(f"{root} is {'not a folder' if root.exists() else 'missing'}: name a folder of photographs")

    def unreadable(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): change its permissions or leave it out")

    found: list[Path] = []
    for folder, _, names in os.walk(root, onerror=unreadable):
        found += [Path(folder, name).relative_to(root) for name in names if Path(name).suffix.lower() in suffixes]
    return sorted(found)
