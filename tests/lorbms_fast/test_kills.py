"""kill -9 at random moments of training, of writing checkpoints and of preparing: what is left, and what was lost."""

import json
import multiprocessing
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lorbms_fast import checkpoint
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import of_folder
from lorbms_fast.dataloader.store import ImageStore, checksum
from lorbms_fast.engine.log import read_lines
from lorbms_fast.errors import UserError
from lorbms_fast.run import Run
from tests.conftest import TINY
from tests.processes import started, train

EVERY = 2
CONFIG = replace(TINY, iterations=10, log_every=1, checkpoint_every=EVERY, sheet_every=5, keep_checkpoints=2)


def prepare(out: Path, photographs: Path) -> None:
    recipe = Recipe(versions=(1, 2, 3))
    prepare_store(out, photographs, of_folder(photographs), recipe, shard_bytes=40_000)


def check_run(run: Run) -> str:
    """Everything that has its name is whole, and no more is lost than the work of the last `EVERY` iterations.

    Returns:
        When the kill came.
    """
    for path in run.checkpoints():
        checkpoint.check(path)
    for path in run.folder.glob("*.json"):
        json.loads(path.read_text())
    for path in run.folder.rglob("[!.]*.png"):
        with Image.open(path) as picture:
            picture.verify()
    logged = [json.loads(line)["iteration"] for line in read_lines(run.folder / "metrics.jsonl")]
    assert logged == [*range(1, len(logged) + 1)]
    last = max((int(path.name) for path in run.checkpoints()), default=0)
    assert len(logged) - last <= EVERY
    if list(run.folder.glob("checkpoints/.*.partial")):
        return "while a checkpoint was written"
    return "before the first checkpoint" if last == 0 else "between checkpoints"


def killed_while_training(folder: Path, store: ImageStore, kills: int) -> Counter[str]:
    """Kill one run after the other, each again and again until it is at its end; count when the kills came."""
    undisturbed = Run.create(folder / "undisturbed", CONFIG, store.path)
    with started(train, undisturbed.folder) as process:  # with as many threads as those that are killed
        process.join()
    counted: Counter[str] = Counter()
    number = 0
    while counted.total() < kills:
        number += 1
        run = Run.create(folder / f"run{number}", CONFIG, store.path)
        while True:
            with started(train, run.folder) as process:
                if counted.total() < kills:
                    wait_for_a_moment(run, process)
                else:
                    process.join()
                if not process.is_alive():
                    break
                process.kill()
                process.join()
            counted[check_run(run)] += 1
        assert process.exitcode == 0
        assert last_files(run) == last_files(undisturbed)
        assert not list(run.folder.rglob(".*.partial"))
    return counted


def wait_for_a_moment(run: Run, process: multiprocessing.Process) -> None:
    """Until a random number of iterations, or a checkpoint that is being written, and a random while."""
    iterations = len(read_lines(run.folder / "metrics.jsonl")) + random.randrange(2 * EVERY)
    writing = random.random() < 0.5

    def early() -> bool:
        if len(read_lines(run.folder / "metrics.jsonl")) < iterations:
            return True
        return writing and not list(run.folder.glob("checkpoints/.*.partial"))

    while process.is_alive() and early():
        time.sleep(0.0005)
    time.sleep(random.uniform(0, 0.02 if writing else 0.2))


def last_files(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [run.folder / "metrics.jsonl", *run.latest().iterdir()]}


def killed_while_preparing(folder: Path, photographs: Path, kills: int) -> Counter[str]:
    """The same for stores."""
    prepare(folder / "undisturbed", photographs)
    counted: Counter[str] = Counter()
    number = 0
    while counted.total() < kills:
        number += 1
        out = folder / f"store{number}"
        while counted.total() < kills:
            with started(prepare, out, photographs) as process:
                time.sleep(random.uniform(0, 0.5))
                if not process.is_alive():
                    break
                process.kill()
                process.join()
            counted[check_preparation(out)] += 1
        if out.exists():
            with pytest.raises(UserError, match="exists already"):
                prepare(out, photographs)
        else:
            prepare(out, photographs)
        files = [{path.name: path.read_bytes() for path in (folder / name).iterdir()} for name in ("undisturbed", out)]
        assert files[0] == files[1]
        assert not out.with_name(f"{out.name}.partial").exists()
    return counted


def check_preparation(out: Path) -> str:
    """Every shard that has a record is what the record says; the store has its name only when it is whole."""
    if out.exists():
        store = ImageStore.open(out)
        assert all(checksum(out / name) == expected for name, expected in store.facts["sha256"].items())
        return "when the store was whole"
    work = out.with_name(f"{out.name}.partial")
    records = sorted(work.glob("shard-*.json"))
    for path in records:
        name = path.stem.replace("shard", "images")
        assert checksum(work / "store" / f"{name}.npy") == json.loads(path.read_text())["sha256"]
    return "between shards" if records else "before the first shard"


def test_a_few_kills(photographs, store, tmp_path):
    random.seed(5)
    assert killed_while_training(tmp_path, store, 3).total() == 3
    assert killed_while_preparing(tmp_path / "stores", photographs, 2).total() == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_thirty_five_kills_of_training(seed, store, tmp_path, capsys):
    random.seed(seed)
    counted = killed_while_training(tmp_path, store, 35)
    with capsys.disabled():
        print(dict(counted))
    assert counted.total() == 35
    assert min(counted["while a checkpoint was written"], counted["between checkpoints"]) >= 5


@pytest.mark.slow
def test_thirty_kills_of_preparing(photographs, tmp_path, capsys):
    random.seed(3)
    counted = killed_while_preparing(tmp_path, photographs, 30)
    with capsys.disabled():
        print(dict(counted))
    assert counted.total() == 30
    assert counted["between shards"] >= 5
