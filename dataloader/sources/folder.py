"""Any folder of photographs."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lorbms_fast.counted import counted
from lorbms_fast.dataloader.image_file import ByteRange, shown
from lorbms_fast.dataloader.sources.listing import Listing, Named, Skipped, first_of, identified
from lorbms_fast.errors import UserError

JPEGS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp"})
SUFFIXES = JPEGS | {".png", ".apng", ".webp", ".avif", ".bmp", ".dib", ".gif", ".tif", ".tiff"}
SUFFIXES |= {".ppm", ".pgm", ".pbm", ".pnm"}
"""Endings, in lower case, of files in the formats that are read."""
UNREAD = frozenset(
    {".heic", ".heif", ".hif", ".avifs", ".jxl", ".jxr", ".jp2", ".j2k", ".jpf", ".jpx", ".psd", ".tga", ".dng"}
    | {".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw", ".exr", ".hdr"}
)
"""Endings of photographs in formats that are not read."""
SYSTEM = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Folders that operating systems and file servers leave among photographs; others begin with a dot."""
OURS = (frozenset({"store.json", "index.parquet"}), frozenset({"run.json", "config.json"}))
"""Files by which image stores and runs are known."""


class Tree(NamedTuple):
    """The files below a folder."""

    files: list[Path]
    """Relative to the folder, in order."""
    ours: list[Path]
    """Image stores and runs below it, which were not entered."""


def of_folder(root: Path) -> Listing:
    """List every picture below a folder, by the endings of file names; the path without ending is its id.

    Hidden files, what operating systems leave, and image stores and runs are left out; links to folders are followed.
    Raises UserError where a folder is missing or cannot be read, or there are no pictures.
    """
    tree = tree_below(root)
    found = named_pictures(tree)
    unread = unread_pictures(tree)
    if not found:
        others = [str(path) for path in tree.files if path.suffix.lower() not in UNREAD]
        there = f", but {counted_names(others, 'other file')}: unpack what is packed" if others else ""
        not_entered = "".join(f"; {note}" for note in _on_ours(root, tree))
        wanted = f"endings {' '.join(sorted(SUFFIXES))} are looked for"
        raise UserError(f"{root} holds no photographs that can be read{first_of(unread)}{there}{not_entered}: {wanted}")
    return Listing(identified(found), unread, notes_on(root, tree, SUFFIXES | UNREAD))


def named_pictures(tree: Tree) -> list[Named]:
    """Name the pictures among some files."""
    pictures = (path for path in tree.files if path.suffix.lower() in SUFFIXES)
    return [Named(path.with_suffix("").as_posix(), path.as_posix(), ByteRange(str(path))) for path in pictures]


def unread_pictures(tree: Tree) -> list[Skipped]:
    """Name the files whose endings are those of formats that are not read."""
    return [unread(str(path)) for path in tree.files if path.suffix.lower() in UNREAD]


def unread(name: str) -> Skipped:
    """Skip a picture for its ending."""
    suffix = Path(name).suffix.lower()
    return Skipped(name, "bad", f"is a {suffix} file, which is not read (convert it to JPEG or PNG)")


def notes_on(root: Path, tree: Tree, endings: Iterable[str]) -> list[str]:
    """Note the stores and runs that were not entered, and the files without one of the endings that are wanted."""
    names = [str(path) for path in tree.files if not path.name.lower().endswith(tuple(endings))]
    others = f"not looked at, for their endings: {counted_names(names, 'file')}"
    return [*_on_ours(root, tree), *([others] if names else [])]


def _on_ours(root: Path, tree: Tree) -> list[str]:
    ours = ", ".join(str(root / path) for path in tree.ours)
    return [f"not entered, as made by this program: {ours}"] if ours else []


def counted_names(names: list[str], noun: str) -> str:
    """Write a number of things with the first three names."""
    some = ", ".join(shown(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{counted(len(names), noun)} ({some})"


def is_hidden(path: str) -> bool:
    """Check for a part of a path that is hidden or the operating system's, such as `._a.jpg` or `__MACOSX`.

    >>> [is_hidden(path) for path in ("a/b.jpg", "a/._b.jpg", "__MACOSX/b.jpg", ".thumbnails/b.jpg", "./b.jpg")]
    [False, True, True, True, False]
    """
    return any((part.startswith(".") and part not in (".", "..")) or part in SYSTEM for part in path.split("/"))


def tree_below(root: Path) -> Tree:
    """List a folder's files, none hidden, each folder once however links lead; UserError where one is unreadable."""
    if not root.is_dir():
        raise no_folder(root)

    def unreadable(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): change its permissions or leave it out")

    found, ours = [], []
    entered = {_identity(folder) for folder in root.resolve().parents}  # a link to these leads back to the root
    for folder, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        identity, place = _identity(Path(folder)), Path(folder).relative_to(root)
        if identity in entered:
            folders.clear()
            continue
        entered.add(identity)
        if place.parts and any(marks.issubset(names) for marks in OURS):
            ours.append(place)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        found += [place / name for name in names if not is_hidden(name)]
    return Tree(sorted(found), sorted(ours))


def no_folder(root: Path) -> UserError:
    """Say that there is no folder of a name, and which might be meant."""
    if root.exists():
        return UserError(f"{root} is not a folder: name the one that it is in")
    return UserError(f"{root} is missing: name a folder of photographs")


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
