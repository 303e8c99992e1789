"""Tar shards: names, sizes and extensions of headers."""

import io
import tarfile
from pathlib import Path

from lorbms_fast.dataloader.sources import photographs_in
from tests.fuzz.material import picture, prepared
from tests.fuzz.reader import Reader

ARCHIVE = "shard.tar"
BLOCK = 512


def seeds() -> list[bytes]:
    """Archives in order in three formats; with links, long names, headers that lie or never end."""
    content = picture("PNG")
    names = ["a/0.png", "a/0.txt", "é.png", "x" * 150 + ".png", "../../secret.png", "/etc/secret.png"]
    plain = [
        archive([(name, content) for name in names], format)
        for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    ]
    one = archive([("0.png", content)], tarfile.USTAR_FORMAT)
    return [
        *plain,
        links(),
        archive([(b"\xff\xfe.png".decode("utf-8", "surrogateescape"), content), ("0.png", content)]),
        *(with_size(one, size) for size in (-BLOCK, -2 * BLOCK, -(2**40), 2**62, 1)),
        *(extended(kind, size) + one for kind in b"xLKgS" for size in (2**33, -BLOCK, -1, 2**62)),
        extended(ord("x"), 0) * 2000 + one,
        pax({"size": "-1024"}) + one,
        pax({"size": "nan"}) + one,
        pax({"size": "9" * 100}) + one,
        pax({"path": "\ud800.png"}) + one,
        pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"}) + sparse_1_0(),
        pax({"GNU.sparse.map": "1,2,x"}) + one,
        b"1" * 60_000,
        extended(ord("x"), 60_000) + b"1" * 60_000,
    ]


def read(data: bytes, folder: Path) -> None:
    """List and prepare. Sums of headers are put right first: damage behind them is what is looked for."""
    root = folder / "tar"
    root.mkdir()
    (root / ARCHIVE).write_bytes(summed(data))
    (folder / "secret.png").write_bytes(picture("PNG"))
    listing = photographs_in(root, "tar")
    assert all(photograph.place.path == ARCHIVE for photograph in listing.photographs)
    prepared(listing, root)
    assert {path.name for path in folder.iterdir()} == {"tar", "secret.png"}


def archive(members: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive of files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, content in members:
            if format == tarfile.USTAR_FORMAT and len(name) > 100:
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def links() -> bytes:
    """Links that lead outside, and a device."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for kind, target in (
            (tarfile.SYMTYPE, "../secret.png"),
            (tarfile.LNKTYPE, "/etc/passwd"),
            (tarfile.CHRTYPE, ""),
        ):
            member = tarfile.TarInfo(f"{kind.decode()}.png")
            member.type, member.linkname = kind, target
            tar.addfile(member)
    return file.getvalue()


def with_size(one: bytes, size: int) -> bytes:
    """An archive whose first header states another size."""
    return one[:124] + number(size) + one[136:]


def extended(kind: int, size: int) -> bytes:
    """A header of an extension that states a size."""
    header = bytearray(archive([("e", b"")], tarfile.USTAR_FORMAT)[:BLOCK])
    header[124:136], header[156] = number(size), kind
    return bytes(header)


def pax(records: dict[str, str]) -> bytes:
    """An extension with records."""
    body = b""
    for key, value in records.items():
        record = f" {key}={value}\n".encode("utf-8", "surrogatepass")
        length = len(record) + 2
        body += b"%d" % (length + (length > 99)) + record
    return extended(ord("x"), len(body)) + body.ljust(-(-len(body) // BLOCK) * BLOCK, b"\0")


def sparse_1_0() -> bytes:
    """A sparse file whose map promises more entries than there are."""
    body = b"1000000\n".ljust(BLOCK, b"0")
    return with_size(archive([("0.png", b"")], tarfile.USTAR_FORMAT), len(body))[:BLOCK] + body


def number(size: int) -> bytes:
    """A size as GNU writes those that are negative or do not fit."""
    if 0 <= size < 8**11:
        return b"%011o\0" % size
    return (size + (0x80 << 88 if size >= 0 else 0)).to_bytes(12, "big", signed=size < 0)


def summed(data: bytes) -> bytes:
    """Every block that says `ustar` gets the sum that it should have."""
    blocks = bytearray(data)
    for start in range(0, len(data) - BLOCK + 1, BLOCK):
        if blocks[start + 257 : start + 262] == b"ustar":
            blocks[start + 148 : start + 156] = b" " * 8
            blocks[start + 148 : start + 156] = b"%06o\0 " % sum(blocks[start : start + BLOCK])
    return bytes(blocks)


READER = Reader("tar", read, seeds, (ARCHIVE, "/tar"))
