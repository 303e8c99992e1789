"""Training from a store elsewhere, by two processes of one machine."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lorbms_fast.config import to_json
from lorbms_fast.dataloader.places import Place
from lorbms_fast.run import Run
from tests.conftest import TINY

ROOT = Path(__file__).parents[3]
NOTED = """
import os
import sys
from pathlib import Path
from lorbms_fast.cli import main
from lorbms_fast.dataloader.batches import NeighbourBatches
from lorbms_fast.dataloader.places import Place

def noted(function, what):
    def call(self, first, *others):
        with Path(sys.argv[0]).with_name(f"{what}-{os.environ['RANK']}").open("a") as file:
            file.write(f"{first}\\n")
        return function(self, first, *others)
    return call

NeighbourBatches.draw = noted(NeighbourBatches.draw, "drawn")
Place.fetch = noted(Place.fetch, "fetched")
main()
"""


@pytest.mark.slow
def test_two_processes_copy_a_store_once_and_read_their_own_samples(bucket, store, tmp_path):
    url = f"{bucket}/trained/store"
    for path in store.path.iterdir():
        Place(url).put(path, path.name)
    (tmp_path / "noted.py").write_text(NOTED)
    (tmp_path / "tiny.json").write_text(to_json(replace(TINY, sheet_every=100)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "noted.py"]
    command += ["train", url, "--out", "run", "--config", "tiny.json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LORBMS_CACHE": str(tmp_path / "cache")}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr

    def lines(what: str) -> list[list[str]]:
        files = [tmp_path / f"{what}-{rank}" for rank in range(2)]
        return [file.read_text().split() if file.exists() else [] for file in files]

    first, second = lines("fetched")
    assert sorted(first + second) == sorted(Place(url).names())
    drawn = [set(map(int, of_rank)) for of_rank in lines("drawn")]
    assert {number % 2 for number in drawn[0]} == {0}
    assert {number % 2 for number in drawn[1]} == {1}
    assert set(range(2 * TINY.iterations)) <= drawn[0] | drawn[1]
    copy = Run.open(tmp_path / "run").store
    assert copy.is_relative_to(tmp_path / "cache")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        path.name: path.read_bytes() for path in store.path.iterdir()
    }
