"""Reading Parquet files that speak of as many rows as there are images, and of no more."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROW = 16 << 10
"""Bytes that a row may take, about: names of 40 neighbours and their distances take one or two thousand."""
NAME = 4096
"""Bytes of the longest name: so many has a path."""


def read_rows(path: Path, rows: int, names: tuple[str, ...]) -> pa.Table:
    """A table of a known number of rows.

    What the file says of its sizes is looked at first, and text is read as a dictionary: a name that a few bytes repeat
    a million times is there once until its length is known. `names` are the columns of text, in Parquet's own notation
    (`q1_ids.list.element`). Pages that have a checksum are compared with it. Columns have a chunk for each of the
    file's groups of rows. Raises OSError or ArrowException where it cannot be read, ValueError where it has another
    number of rows, or absurdly long ones.
    """
    # From an open file: pyarrow takes no path that is not UTF-8. By this thread alone: others would let go of the file
    # when they like, and where Python ends meanwhile that aborts the process.
    with (
        path.open("rb") as opened,
        pq.ParquetFile(opened, read_dictionary=list(names), pre_buffer=False, page_checksum_verification=True) as file,
    ):
        facts = file.metadata
        if facts.num_rows != rows:
            raise ValueError(f"it has {facts.num_rows:,} rows for {rows:,} images")
        size = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
        if not 0 <= size <= rows * ROW + (1 << 20):
            raise ValueError(f"its {rows:,} rows would take {size:,} bytes")
        # One group after the other: lists of text that have several dictionaries cannot be read at once.
        read = [file.read_row_group(i, use_threads=False) for i in range(facts.num_row_groups)]
        table = pa.concat_tables([_plain_table(group) for group in read or [file.schema_arrow.empty_table()]])
    if len(table) != rows:
        raise ValueError(f"it has {len(table):,} rows for {rows:,} images")
    return table


def _plain_table(table: pa.Table) -> pa.Table:
    return pa.table({name: _plain(table[name]) for name in table.column_names}, metadata=table.schema.metadata)


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """Decode a column's dictionary; ValueError where a text is too long for a name."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # which it is where there are no rows
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        longest = pc.max(pc.binary_length(array.dictionary)).as_py() or 0
        if longest > NAME:
            raise ValueError(f"it has names of {longest:,} bytes")
        return array.dictionary_decode()
    if pa.types.is_list(array.type) and pa.types.is_dictionary(array.type.value_type):
        return pa.ListArray.from_arrays(array.offsets, _plain(pa.chunked_array([array.values])), mask=array.is_null())
    return array
