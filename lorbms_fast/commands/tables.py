"""Tables on the terminal."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], title: str | None = None, numbers: int = 0
) -> None:
    """Print rows below their columns' names, the last columns, so many, as `numbers`, the others as text.

    What looks like markup stays: a folder may be called [bold]. What is too long is folded, not cut off.
    """
    table = Table(*(Column(name, overflow="fold") for name in columns), title=title)
    for column in table.columns[len(columns) - numbers :]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)
