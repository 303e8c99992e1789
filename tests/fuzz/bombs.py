"""Small files that claim, or become, much: each is read in a process of little memory.

`python -m tests.fuzz.bombs` prints, for each, the memory that it took and what was said; the exit status is 1 where it
took more than its share or died of something else than a UserError.
"""

import json
import resource
import struct
import sys
import zlib
from pathlib import Path

import pyarrow as pa

from lorbms_fast.dataloader.neighbour_table import FILE
from lorbms_fast.dataloader.store import FACTS, INDEX
from lorbms_fast.measurement.proc import bytes_told
from tests.fuzz.material import IMAGES, picture, store_files
from tests.fuzz.reader import ask
from tests.fuzz.readers import published_weights, reader, store_index, tar, voc
from tests.fuzz.readers.pictures import png_claiming

ROOM = 1 << 30
"""Bytes of address space that reading may take: a picture of the 100,000,000 pixels that are allowed takes most."""
SHARE = 64 << 20
"""Bytes that may really be used."""


def bombs() -> dict[str, tuple[str, bytes]]:
    """Name -> reader and file."""
    index, neighbours = (tabled(store_files()[name]) for name in (INDEX, FILE))
    names = pa.array(["x" * (1 << 20)] * IMAGES)
    facts = json.loads(store_files()[FACTS])
    tensor = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]}
    return {
        "a store of 10^12 images": ("store_facts", as_bytes(facts | {"shards": {"images-00000.npy": 10**12}})),
        "a store of images of 10^9 pixels": ("store_facts", as_bytes(facts | {"image_size": 10**9})),
        "a shard whose header claims 10^12 images": ("store_shard", shard((10**12, 32, 32, 3))),
        "an index of 10^8 equal rows": ("store_index", rows(10_000_000)),
        "an index whose names have 1 MB": ("store_index", store_index.parquet(index.set_column(1, "source", names))),
        "an index of zeros, compressed": ("store_index", zeros()),
        "neighbours whose names have 1 MB": (
            "neighbours",
            store_index.parquet(neighbours.set_column(0, "id", names)),
        ),
        "billion laughs": ("voc", voc.LAUGHS + voc.BETWEEN + b"1\n"),
        "quadratic entities": ("voc", quadratic() + voc.BETWEEN + b"1\n"),
        "a tar whose long name has 8 GB": ("tar", tar.extended(ord("L"), 2**33) + bytes(1024)),
        "a tar whose extension has 8 GB": ("tar", tar.extended(ord("x"), 2**33) + bytes(1024)),
        "a tar whose picture has 2^62 bytes": ("tar", tar.with_size(tar.archive([("a.png", b"")]), 2**62)),
        "a tar that leads back to its beginning": ("tar", tar.with_size(tar.archive([("a.png", b"")]), -1024)),
        "a PNG of 60,000 x 60,000": ("pictures", png_claiming(picture("PNG"), 60_000, 60_000)),
        "a PNG of 3.6 * 10^9 white pixels": ("pictures", white(60_000)),
        "a PNG with 256 MB of text": ("pictures", with_text()),
        "a GIF of 65,535 x 65,535": ("pictures", claiming(picture("GIF"), 6, 65_535, 65_535)),
        "a BMP of 2^30 x 2^30": ("pictures", bmp()),
        "a TIFF whose tag has 2^31 values": ("pictures", tiff()),
        "a pickle whose text claims 4 GB": ("published_weights", pickled(b"\x80\x02X" + struct.pack("<I", 2**32 - 1))),
        "a pickle that asks for 16 TB": ("published_weights", published_weights.seeds()[4]),
        "settings of 30,000 nested tables": ("settings", b".".join([b"a"] * 30_000) + b" = 1"),
        "settings of 2,000 nested tables": ("settings", b".".join([b"a"] * 2_000) + b" = 1"),
        "weights whose header claims 4 TB": ("weights", safetensors({"enc.first.weight": tensor})),
    }


def main() -> int:
    """Read each in this process, whose memory is limited first."""
    known = bombs()
    for name in sorted({name for name, _ in known.values()}):
        ask(reader(name), reader(name).seeds()[0])  # imports, caches and threads come before the limit
    held = bytes_told("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (held + ROOM, held + ROOM))
    faults = 0
    for title, (name, data) in known.items():
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        before = bytes_told("VmRSS")
        try:
            said = str(ask(reader(name), data) or "read")
        except BaseException as error:
            said = f"FAULT {type(error).__name__}: {error}"
        taken = bytes_told("VmHWM") - before
        fault = taken > SHARE or said.startswith("FAULT")
        faults += fault
        print(
            f"{'FAULT' if fault else 'ok':<6}{taken / 2**20:>7.1f} MB {len(data):>10,} bytes  {title}: {said}",
            flush=True,
        )
    return min(faults, 1)


def as_bytes(document: object) -> bytes:
    """A document as JSON."""
    return json.dumps(document).encode()


def tabled(data: bytes) -> pa.Table:
    """A Parquet file's table."""
    return pa.parquet.read_table(pa.BufferReader(data))


def shard(shape: tuple[int, ...]) -> bytes:
    """An npy file of nothing but a header."""
    header = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def rows(count: int) -> bytes:
    """An index of many equal rows: they take next to nothing."""
    table = tabled(store_files()[INDEX]).slice(0, 1)
    return store_index.parquet(table.take(pa.array([0] * count, pa.int32())), compression="zstd")


def zeros() -> bytes:
    """An index of the right number of rows, in which each has a megabyte of zeros, compressed."""
    table = tabled(store_files()[INDEX])
    sources = pa.array(["\0" * (1 << 20)] * IMAGES)
    return store_index.parquet(table.set_column(1, "source", sources), compression="zstd", use_dictionary=False)


def quadratic() -> bytes:
    """One long entity, many times."""
    long = b"<!DOCTYPE a [<!ENTITY e '" + b"x" * 200_000 + b"'>]>"
    return long + b"<annotation>" + b"&e;" * 20_000 + b"</annotation>"


def white(side: int) -> bytes:
    """A PNG that really has side x side pixels of one bit, in some hundred kilobytes."""
    line = zlib.compressobj(9)
    data = b"".join([line.compress(bytes(1 + side // 8) * 1000) for _ in range(side // 1000)] + [line.flush()])
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", data), (b"IEND", b"")]
    sums = [kind + content + struct.pack(">I", zlib.crc32(kind + content)) for kind, content in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + summed for (_, content), summed in zip(chunks, sums, strict=True)
    )


def with_text() -> bytes:
    """A PNG with a text that is compressed a thousand times."""
    png, text = picture("PNG"), b"a\0\0" + zlib.compress(bytes(256 << 20), 9)
    return png[:33] + struct.pack(">I", len(text)) + b"zTXt" + text + b"\0\0\0\0" + png[33:]


def claiming(data: bytes, at: int, width: int, height: int) -> bytes:
    """A file with another size in 16 bits."""
    return data[:at] + struct.pack("<HH", width, height) + data[at + 4 :]


def bmp() -> bytes:
    """A BMP with another size."""
    data = picture("BMP")
    return data[:18] + struct.pack("<ii", 2**30, 2**30) + data[26:]


def tiff() -> bytes:
    """A TIFF whose first tag has two thousand million values."""
    data = bytearray(picture("TIFF"))
    first = struct.unpack_from("<I", data, 4)[0] + 2
    struct.pack_into("<I", data, first + 4, 2**31 - 1)
    return bytes(data)


def pickled(data: bytes) -> bytes:
    """A pickle for the reader of published weights."""
    return published_weights.BARE + data


def safetensors(header: dict[str, object]) -> bytes:
    """A safetensors file of nothing but a header."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


if __name__ == "__main__":
    sys.exit(main())
