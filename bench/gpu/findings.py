"""What the phases find: JSON lines written as they come, and read again for the page."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Findings:
    """The lines of one phase, in the file that all phases append to."""

    file: Path
    phase: str

    def row(self, table: str, wrong: str | None = None, **cells: Any) -> None:
        """Write a row below a table's heading; `wrong` says what is wrong, None where all is right or nothing judged.

        A table's columns are those of all its rows' cells, in the order in which they first come.
        """
        self._write({"table": table, "wrong": wrong, "cells": cells})

    def note(self, text: str, wrong: bool = False) -> None:
        self._write({"note": text, "wrong": text if wrong else None})

    def missed(self, text: str) -> None:
        """Say what was not measured, and why."""
        self._write({"missed": text})

    def _write(self, line: dict[str, Any]) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps({"phase": self.phase, **line}, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read(file: Path) -> list[dict[str, Any]]:
    """Read all lines; one that a killed phase left half written is no line."""
    found = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found
