"""`python -m bench`: run all suites and rewrite the measured part of bench/RESULTS.md; `pytest bench -k` runs some."""

import argparse
import datetime
import sys
import tempfile
from pathlib import Path

import pytest

from bench.report import plot, replaced, rows, tables
from lorbms_fast.measurement.machine import machine

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"


def main() -> int:
    """Run all suites and write what they found; returns pytest's status."""
    argparse.ArgumentParser(prog="python -m bench", description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        options = ["-o", "addopts=--import-mode=importlib", "-q", f"--benchmark-json={results}"]
        status = int(pytest.main([*options, str(HERE)]))
        if status:
            return status
        found = rows(results)
    here = machine()
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    measured = f"{date}, {here}.\n\n{tables(found)}\n\n![ratios](ratios.png)"
    RESULTS.write_text(replaced(RESULTS.read_text(), "measured", measured))
    plot(found, here, HERE / "ratios.png")
    print(f"{RESULTS} and {HERE / 'ratios.png'} are new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
