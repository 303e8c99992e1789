"""`neighbours.parquet`, with the candidates of every quadrant."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lorbms_fast.dataloader.neighbour_table import FILE, NeighbourTable
from lorbms_fast.dataloader.store import ImageStore
from tests.fuzz.material import IMAGES, lay_store, store_files
from tests.fuzz.reader import Reader
from tests.fuzz.readers.store_index import parquet


def seeds() -> list[bytes]:
    """As searched, and with cells of other kinds."""
    table = _table()
    ids, distances = table["q1_ids"].to_pylist(), table["q1_distances"].to_pylist()
    uneven = [ids[0] + ids[1][:1], ids[1][1:], *ids[2:]]
    return [
        store_files()[FILE],
        parquet(table, compression="none", use_dictionary=False),
        parquet(table.replace_schema_metadata(None)),
        parquet(_changed(table, "q1_ids", uneven)),
        parquet(_changed(table, "q1_ids", [None, *ids[1:]])),
        parquet(_changed(table, "q1_ids", [["nobody"] * 10] * IMAGES)),
        parquet(_changed(table, "q1_distances", [[float("nan")] * 10, *distances[1:]])),
        parquet(_changed(table, "q1_distances", [[None] * 10, *distances[1:]])),
        parquet(_changed(table, "q1_distances", ["a"] * IMAGES)),
        parquet(_changed(table, "q1_ids", list(range(IMAGES)))),
        parquet(_changed(table, "id", list(range(IMAGES)))),
        parquet(pa.Table.from_arrays([*table.columns, table["id"]], [*table.column_names, "id"])),
        parquet(table.slice(1)),
    ]


def read(data: bytes, folder: Path) -> None:
    """Open a store and its neighbours."""
    store = ImageStore.open(lay_store(folder, {FILE: data}))
    table = NeighbourTable.load(store)
    assert table.rows.shape == table.distances.shape == (IMAGES, 4, 10)
    assert 0 <= table.rows.min() <= table.rows.max() < IMAGES
    assert np.isfinite(table.distances).all()
    assert np.isfinite(table.tau)
    assert isinstance(table.facts, dict)


def written(facts: object) -> bytes:
    """The table with other facts in its metadata."""
    return parquet(_table().replace_schema_metadata({"lorbms_fast": json.dumps(facts)}))


def _table() -> pa.Table:
    return pq.read_table(pa.BufferReader(store_files()[FILE]))


def _changed(table: pa.Table, name: str, column: list[Any]) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(column))


READER = Reader(
    "neighbours", read, seeds, (FILE,), lambda: [json.loads(_table().schema.metadata[b"lorbms_fast"])], written
)
