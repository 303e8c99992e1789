"""Tar archives as WebDataset lays them out: the files of a sample share a name up to its first dot."""

import errno
import io
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lorbms_fast.counted import counted
from lorbms_fast.dataloader.image_file import ByteRange
from lorbms_fast.dataloader.sources.folder import (
    JPEGS,
    SUFFIXES,
    UNREAD,
    Tree,
    is_hidden,
    named_pictures,
    notes_on,
    tree_below,
    unread,
    unread_pictures,
)
from lorbms_fast.dataloader.sources.listing import Listing, Named, Skipped, first_of, identified
from lorbms_fast.errors import UserError

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of compressed files -> the program that unpacks them."""
MASKS = frozenset(
    {"seg", "segm", "segmentation", "semantic", "instance", "panoptic", "mask", "masks", "label", "labels", "gt"}
    | {"depth", "disparity", "normal", "normals", "edge", "edges", "alpha", "matte", "trimap", "heatmap", "saliency"}
)
"""Words before a picture's ending that say that it is no photograph: 000.seg.png."""
HEADER = 16 << 10
"""Max. length of a header in bytes: four times the longest path."""
BLOCK = 512
STRETCH = 16 << 10
"""Number of bytes behind an archive's end that are searched at a time for another archive."""


Members = Callable[[Path, list[Path]], tuple[list[Named], list[Skipped]]]
"""Function of a folder and archives below it that names their photographs, as `named_members` does."""


def of_tar(root: Path, members: Members | None = None) -> Listing:
    """List the pictures in the uncompressed tar archives below a folder; nothing is unpacked.

    A picture's id is its name in the archive up to the first dot of the last part, with the archive's name before it
    where several have the same. A damaged archive gives the pictures before the damage, and an unusable entry. Of a
    member that was written again the last counts; archives that were joined are read to the last. Masks and the like
    beside a sample's photograph are left out. `members` reads the archives in the place of `named_members`. Raises
    UserError where there is no such folder, no archive in it, or no picture in these.
    """
    tree = tree_below(root)
    archives = archives_in(tree)
    if not archives:
        raise UserError(f"{root} holds no .tar files: choose another folder")
    found, unusable = (members or named_members)(root, archives)
    if not found:
        packed = f"{root}'s {counted(len(archives), 'archive')}"
        raise UserError(f"no pictures are in {packed}{first_of(unusable)}: choose another folder")
    return Listing(identified(found), unusable, notes_on(root, tree, ENDINGS))


def of_mixed(root: Path, members: Members | None = None) -> Listing:
    """List the pictures below a folder and in its tar archives, as `of_tar`; UserError where it cannot be read."""
    tree = tree_below(root)
    loose = named_pictures(tree)
    packed, unusable = (members or named_members)(root, archives_in(tree))
    lie = f"{counted(len(loose), 'picture lies', 'pictures lie')} beside archives with {len(packed):,}"
    note = f"{lie}: --layout folder or tar takes one kind"
    notes = notes_on(root, tree, (*SUFFIXES, *UNREAD, *ENDINGS))
    return Listing(identified([*loose, *packed]), unread_pictures(tree) + unusable, [note, *notes])


def archives_in(tree: Tree) -> list[Path]:
    """List the tar archives among some files, compressed ones too."""
    return [path for path in tree.files if path.name.lower().endswith(ENDINGS)]


def named_members(root: Path, archives: list[Path]) -> tuple[list[Named], list[Skipped]]:
    """Name the photographs in archives, in the archives' order, and what is left out."""
    found: list[Named] = []
    left_out: list[Skipped] = []
    for archive in archives:
        places: dict[str, ByteRange] = {}
        try:
            for name, member in _members(root / archive):  # one by one: what comes before damage counts
                if name in places:
                    left_out.append(Skipped(f"{places.pop(name)}", "beside", f"is {name}, written again further on"))
                suffix = Path(name).suffix.lower()
                if member.issparse() and suffix in SUFFIXES:
                    left_out.append(Skipped(f"{archive}/{name}", "bad", "is sparse in its archive, which is not read"))
                elif (member.issym() or member.islnk()) and suffix in SUFFIXES:
                    left_out.append(Skipped(f"{archive}/{name}", "beside", "is a link in its archive"))
                elif member.isreg() and suffix in SUFFIXES | UNREAD:
                    places[name] = ByteRange(str(archive), member.offset_data, member.size)
        except Exception as error:  # tarfile meets strangers' headers with exceptions of every kind
            left_out.append(Skipped(str(archive), "bad", _damage(root / archive, error)))
        read = [name for name in places if Path(name).suffix.lower() in SUFFIXES]
        photographs, beside = _photographs(read)
        found += [Named(_key(name), f"{archive}/{name}", places[name]) for name in photographs]
        left_out += [Skipped(f"{archive}/{name}", "beside", reason) for name, reason in beside.items()]
        left_out += [unread(f"{archive}/{name}") for name in sorted(places.keys() - set(read))]
    return found, left_out


def _photographs(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Tell the photographs among an archive's pictures from what lies beside them in a sample, and why.

    >>> _photographs(["0.jpg", "0.seg.png", "1.image.jpg", "v1.0/2.jpg", "3.jpg", "3.png", "4.png", "5.1.png"])[0]
    ['0.jpg', '1.image.jpg', 'v1.0/2.jpg', '3.jpg', '4.png', '5.1.png']
    """
    jpegs = {posixpath.splitext(name)[0]: name for name in names if Path(name).suffix.lower() in JPEGS}
    plain = {_key(name): name for name in names if not _words(name)}
    photographs, beside = [], {}
    for name in names:
        words, stem, is_jpeg = _words(name), posixpath.splitext(name)[0], Path(name).suffix.lower() in JPEGS
        photograph = plain.get(_key(name)) if words else None if is_jpeg else jpegs.get(stem)
        if words & MASKS:
            beside[name] = f"is the {min(words & MASKS)} of a sample, by its name"
        elif photograph:
            beside[name] = f"lies beside its sample's photograph {photograph}"
        else:
            photographs.append(name)
    return photographs, beside


def _words(name: str) -> set[str]:
    """Words between a sample's name and a picture's ending, without numbers and other endings."""
    words = posixpath.basename(name).lower().split(".")[1:-1]
    return {word for word in words if not word.isdigit() and f".{word}" not in SUFFIXES}


class _Headers(io.FileIO):
    """File that refuses long reads and a second read behind its end.

    tarfile reads an extension's text in one piece, as long as its header claims, searches it in quadratic time, and
    waits for the end of some texts behind the end of the file.
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


def _members(path: Path) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yield members of a file's joined archives by normalized names, none hidden; TarError where it is damaged."""
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "it is missing, or no file")
    length, end = path.stat().st_size, 0
    start: int | None = 0
    while start is not None:
        with _Headers(path) as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    # A size below zero leads back to members that were read before, and round and round; sparse
                    # ones tell their size with the holes.
                    size = 0 if member.issparse() else member.size
                    if member.offset_data <= end or not 0 <= size <= length - member.offset_data:
                        claim = f"a file of {member.size:,} bytes begins at byte {member.offset_data:,}"
                        raise tarfile.ReadError(claim)
                    end = member.offset_data
                    name = posixpath.normpath(member.name)
                    if not is_hidden(name):
                        yield name, member
                following = _next_archive(path, archive.offset)
                if following is not None and following == start:
                    raise tarfile.ReadError(f"no header begins at byte {start:,}")
                start = following


def _next_archive(path: Path, end: int) -> int | None:
    """Find the first block behind an archive's end that is more than zeros."""
    with path.open("rb") as file:
        file.seek(end)
        while data := file.read(STRETCH):
            if rest := data.lstrip(b"\0"):
                return end + (len(data) - len(rest)) // BLOCK * BLOCK
            end += len(data)
    return None


def compressed_by(path: Path) -> str | None:
    """Name the program that a file is compressed by, as its first bytes tell."""
    with path.open("rb") as file:
        start = file.read(8)
    return next((program for magic, program in COMPRESSED.items() if start.startswith(magic)), None)


def _damage(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror})"
    if program := compressed_by(path):
        return f"is compressed by {program} (unpack it first: pictures are read in place)"
    return f"is damaged as a tar archive ({error})"


def _key(name: str) -> str:
    path = Path(name)
    return path.with_name(path.name.split(".")[0] or path.name).as_posix()
