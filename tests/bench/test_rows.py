"""`pytest bench` as users of pytest-benchmark know it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.report import Row, replaced, rows, tables
from lorbms_fast.measurement.pairs import Pair

ROOT = Path(__file__).parents[2]


def test_reference_and_fast_are_rows_of_one_group(tmp_path):
    command = [sys.executable, "-m", "pytest", "bench", "-k", "instance and 656"]
    options = [f"--benchmark-json={tmp_path / 'found.json'}", f"--benchmark-storage={tmp_path}", "--benchmark-save=one"]
    options += [f"--benchmark-histogram={tmp_path / 'drawn'}", "--benchmark-compare"]  # with nothing yet: it is told
    # In a worker of pytest-xdist the outer run's variables would turn timing off.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ran = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "benchmark 'layer, instance norm + ReLU, 656 maps 4x4': 2 tests" in ran.stdout
    assert "Can't compare. No benchmark files" in ran.stderr
    found = json.loads((tmp_path / "found.json").read_text())["benchmarks"]
    assert [(row["name"], row["group"]) for row in found] == [
        ("fast", "layer, instance norm + ReLU, 656 maps 4x4"),
        ("reference", "layer, instance norm + ReLU, 656 maps 4x4"),
    ]
    assert len({row["fullname"] for row in found}) == 2  # which --benchmark-compare goes by
    assert "| layer, instance norm + ReLU, 656 maps 4x4 |" in tables(rows(tmp_path / "found.json"))
    assert list(tmp_path.rglob("*_one.json"))
    (drawn,) = tmp_path.glob("drawn*.svg")
    assert "layer, instance norm + ReLU, 656 maps 4x4" in drawn.read_text()


def test_what_cannot_be_beaten_is_in_a_table_of_its_own():
    row = Row("reading", Pair([1.0], [2.0]), {}, "a plain copy")
    compared, bounded = tables([Row("batches", Pair([4.0], [2.0]), {}), row]).split("Beside")
    assert "| batches | 4000.0 | 2000.0 | **2.00** |" in compared
    assert "reading" not in compared
    assert "| reading | a plain copy | 1000.0 | 2000.0 | 0.50 |" in bounded


def test_a_page_without_the_marks_of_a_part_stays_as_it_is():
    page = "before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n"
    assert replaced(page, "measured", "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="<!-- measured: end -->"):
        replaced(page.replace("measured: end", ""), "measured", "new")
