"""The loop of the engine's page trains as the command does."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorbms_fast.config import PRESETS
from lorbms_fast.run import Run, load_networks

PAGE = Path(__file__).parents[2] / "docs" / "engine.md"


def test_a_loop_of_ones_own(run, store, monkeypatch):
    monkeypatch.setitem(PRESETS, "demo", replace(Run.open(run).config, iterations=2))
    (lines,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    exec(lines.replace("STORE", str(store.path)), found)
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][1]
    assert {"iteration": 2} | found["metrics"].numbers() == pytest.approx(logged, rel=1e-5)


def test_networks_of_a_run_named_by_a_string(run):
    assert not load_networks(str(run)).training
