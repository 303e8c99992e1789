"""`images-00000.npy`: a header that says how much follows."""

from pathlib import Path

from lorbms_fast.dataloader.store import ImageStore
from tests.fuzz.material import lay_store, store_files
from tests.fuzz.reader import Reader

SHARD = "images-00000.npy"


def seeds() -> list[bytes]:
    """As prepared; with headers that Python's parser takes badly."""
    right = store_files()[SHARD]
    body = right[128:]
    hostile = [
        b"-" * 60_000 + b"1",
        b"(" * 150 + b")" * 150,
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (12, 32, 32, 3)" + b" " * 20_000 + b"}",
        b"{'descr': ('|u1', (1000000000,)), 'fortran_order': False, 'shape': (12, 32, 32, 3)}",
        b"{'descr': [('a',)], 'fortran_order': False, 'shape': (12, 32, 32, 3)}",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (12, 32, 32, 99999999999999999999)}",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (12, 32, 32, 3)}",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (12L, 32L, 32L, 3L)}",
        b"{'descr': '|u1\x00', 'fortran_order': False, 'shape': (12, 32, 32, 3)}",
    ]
    headers = [b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header for header in hostile]
    return [right, *(header + body for header in headers)]


def read(data: bytes, folder: Path) -> None:
    """Open, look at every image."""
    store = ImageStore.open(lay_store(folder, {SHARD: data}))
    assert store.images[:].shape == (len(store), store.side, store.side, 3)


READER = Reader("store_shard", read, seeds, (SHARD,))
