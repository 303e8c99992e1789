"""`python -m bench`: run the suites and rewrite the measured part of bench/RESULTS.md."""

import datetime
import sys
import tempfile
from pathlib import Path

import pytest

from bench.report import plot, rows, tables
from lorbms_fast.measurement.machine import machine

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def main(selection: list[str]) -> int:
    """Run all suites, or what `selection` names to pytest; returns pytest's status."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        options = ["-o", "addopts=--import-mode=importlib", "-q", f"--benchmark-json={results}"]
        status = int(pytest.main([*options, *(selection or [str(HERE)])]))
        if status:
            return status
        found = rows(results)
    here = machine()
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    measured = f"{BEGIN}\n{date}, {here}.\n\n{tables(found)}\n\n![ratios](ratios.png)\n{END}"
    text = RESULTS.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    RESULTS.write_text(before + measured + after)
    plot(found, here, HERE / "ratios.png")
    print(f"{RESULTS} and {HERE / 'ratios.png'} are new")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
