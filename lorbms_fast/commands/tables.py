"""Tables on the terminal."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Column, Table


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None, numbers: int = 0
) -> None:
    """Print rows below their columns' names, the last columns, so many, as `numbers`, the others as text.

    What looks like markup stays: a folder may be called [bold].
    """
    text = len(columns) - numbers
    table = Table(*columns[:text], *(Column(name, justify="right") for name in columns[text:]), title=title)
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)
