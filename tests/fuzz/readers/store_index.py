"""`index.parquet`, with where each image came from."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lorbms_fast.dataloader.store import INDEX, ImageStore
from tests.fuzz.material import IMAGES, SIDE, lay_photographs, lay_store, store_files
from tests.fuzz.reader import Reader


def seeds() -> list[bytes]:
    """As prepared, uncompressed, and with rows of other kinds."""
    table = pq.read_table(pa.BufferReader(store_files()[INDEX]))
    return [
        store_files()[INDEX],
        parquet(table, compression="none", use_dictionary=False),
        parquet(table.slice(1)),
        parquet(table.drop_columns(["id"])),
        parquet(table.set_column(0, "id", pa.nulls(IMAGES, pa.string()))),
        parquet(pa.concat_tables([table.slice(0, 1)] * IMAGES)),
        parquet(table.set_column(1, "source", pa.array(["../../secret.jpg"] * IMAGES))),
        parquet(table.set_column(1, "source", pa.array(["/etc/passwd"] * IMAGES))),
        parquet(table.set_column(2, "offset", pa.array([-1] * IMAGES, pa.int64()))),
        parquet(table.set_column(2, "offset", pa.array([2**63 - 1] * IMAGES, pa.int64()))),
        parquet(table.set_column(3, "length", pa.array([-1] * IMAGES, pa.int64()))),
        parquet(table.set_column(8, "crop_side", pa.array([-5] * IMAGES, pa.int32()))),
        parquet(table.set_column(6, "crop_x", pa.array([-(2**31)] * IMAGES, pa.int32()))),
        parquet(table.set_column(8, "crop_side", pa.array([None] * IMAGES, pa.int32()))),
    ]


def read(data: bytes, folder: Path) -> None:
    """Open, and decode a photograph that it names again."""
    lay_photographs(folder)
    store = ImageStore.open(lay_store(folder, {INDEX: data}))
    assert len(set(store.ids)) == len(store)
    assert store.square(0, SIDE).shape == (SIDE, SIDE, 3)


def parquet(table: pa.Table, **options: Any) -> bytes:
    """A table as a Parquet file."""
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


READER = Reader("store_index", read, seeds, (INDEX, ".png", "secret", "passwd"))
