"""Tables on the terminal."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Column, Table


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None, left: int = 0) -> None:
    """Print rows below their columns' names, the first `left` columns as text, the others as numbers; 0: all as text.

    What looks like markup stays: a folder may be called [bold].
    """
    numbers = columns[left:] if left else []
    table = Table(
        *columns[: len(columns) - len(numbers)], *(Column(name, justify="right") for name in numbers), title=title
    )
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)
