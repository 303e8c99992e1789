"""The result of the neighbour search: `neighbours.parquet` in a store's folder.

One row an image in the store's order: `id`, and for each quadrant n `q{n}_ids` and `q{n}_distances`, nearest first.
How they were found is JSON under the schema's metadata key `lorbms_fast`.
"""

import hashlib
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.dataloader.parquet import read_rows
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError, as_word

NEIGHBOURS = 10
QUADRANTS = 4
FILE = "neighbours.parquet"
_METADATA = b"lorbms_fast"
STORE = "store"
"""The fact that names the store by its digest: ids may be those of other pictures. Absent before 1 December 2026."""
ROWS = 1 << 15
"""Number of rows that are written at a time: ten of the longest names of each fit into an array of pyarrow's, 2 GB."""


@dataclass(frozen=True)
class NeighbourTable:
    """The ten nearest images of every quadrant of every image."""

    rows: NDArray[np.int64]
    """(N, 4, 10) row numbers in the store, nearest first."""
    distances: NDArray[np.float32]
    """(N, 4, 10) squared L2 between raw features."""
    tau: float
    """Threshold on the distances for mixing."""
    features: str
    """Name of the feature extractor: distances are on its scale."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Facts of the search: clusters, seed, choice of tau."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of who the neighbours are and of how far away they are, however they are written down."""
        found = hashlib.sha256()
        for array in (self.rows, self.distances):
            found.update(np.ravel(array).data)
        return found.hexdigest()

    def save(self, store: ImageStore) -> Path:
        """Write the table into the store's folder, replacing an older one."""
        ids = pa.array(store.ids)
        facts = self.facts | {"tau": self.tau, "features": self.features, STORE: store.digest}

        def part(rows: slice) -> pa.Table:
            columns: dict[str, Any] = {"id": ids[rows]}
            for q in range(QUADRANTS):
                columns[f"q{q + 1}_ids"] = _lists(ids.take(pa.array(self.rows[rows, q].ravel())))
                columns[f"q{q + 1}_distances"] = _lists(pa.array(self.distances[rows, q].ravel(), pa.float32()))
            return pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(facts)})

        schema = part(slice(0, 0)).schema
        with (
            atomic_write(store.path / FILE) as at,
            at.open("wb") as file,
            pq.ParquetWriter(file, schema, write_page_checksum=True) as writer,
        ):
            for start in range(0, len(ids), ROWS):
                writer.write_table(part(slice(start, start + ROWS)))
        return store.path / FILE

    @classmethod
    def load(cls, store: ImageStore) -> "NeighbourTable":
        """Read the table of a store; UserError where there is none, it is damaged, or it belongs to other images."""
        path = store.path / FILE
        if not path.is_file():
            raise UserError(f"{store.path} has no neighbours yet: run  lorbms-fast neighbours {as_word(store.path)}")
        again = f"run  lorbms-fast neighbours {as_word(store.path)}  again"
        try:
            names = [f"q{q}_ids" for q in range(1, QUADRANTS + 1)]
            table = read_rows(path, len(store), ("id", *(f"{name}.list.element" for name in names)))
            facts = json.loads((table.schema.metadata or {})[_METADATA])
            tau, features = float(facts.pop("tau")), str(facts.pop("features"))
            ids = pa.array(store.ids)
            known = table["id"].equals(pa.chunked_array([ids]))
            rows = [pc.index_in(_cells(table, name, ids.type), value_set=ids) for name in names]
            distances = [_cells(table, f"q{q}_distances", pa.float32()) for q in range(1, QUADRANTS + 1)]
            shape = (len(store), NEIGHBOURS)
            all_rows = np.stack([np.asarray(r.fill_null(-1), np.int64).reshape(shape) for r in rows], axis=1)
            all_distances = np.stack([np.asarray(d, np.float32).reshape(shape) for d in distances], axis=1)
            if not (np.isfinite(all_distances).all() and math.isfinite(tau)):
                raise ValueError(f"tau {tau} or distances are not numbers")
        except PermissionError:
            raise
        except Exception as error:  # cells and metadata may be of any kind, and so are the exceptions
            raise UserError(f"{path} is damaged ({type(error).__name__}: {error}): {again}") from error
        if not known or all_rows.min(initial=0) < 0 or facts.pop(STORE, store.digest) != store.digest:
            raise UserError(f"{path} speaks of other images than the store holds: {again}")
        return cls(all_rows, all_distances, tau, features, facts)


def neighbours_digest(store: ImageStore) -> str | None:
    """Compute SHA-256 of who the neighbours of a store's images are and of tau; None where it has none.

    How they were found is no part of it, nor how far away they are: that differs in its last bits between machines, as
    tau may.
    """
    if not (store.path / FILE).is_file():
        return None
    table = NeighbourTable.load(store)
    return hashlib.sha256(table.rows.tobytes() + f"{table.tau:.5g}".encode()).hexdigest()


def _lists(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(np.arange(0, len(values) + 1, NEIGHBOURS, dtype=np.int32), values)


def _cells(table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """The cells of a column of lists, ten a row; ValueError where they are of another kind, or not ten."""
    column = table[name]
    if not pa.types.is_list(column.type) or column.type.value_type != kind:
        raise ValueError(f"{name} is {column.type}")
    if column.null_count or not pc.all(pc.equal(pc.list_value_length(column), NEIGHBOURS)).as_py():
        raise ValueError(f"{name} has not {NEIGHBOURS} in every row")
    return pc.list_flatten(column)
