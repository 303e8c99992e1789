"""A run that is interrupted after every single iteration, against one that nobody disturbs: bit for bit the same."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist

from lorbms_fast.config import TrainConfig
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.engine.distributed import ALONE, World
from lorbms_fast.engine.signals import Interrupted, stop_requests
from lorbms_fast.engine.trainer import Training
from lorbms_fast.run import BEGINNING, Run
from lorbms_fast.training.setup import batch_source
from tests.conftest import TINY
from tests.processes import work_together

CONFIG = replace(TINY, iterations=4, sheet_every=100)
FRESH = replace(TINY.optim, batches="fresh", sn_power_iterations=(9, 2))
MODES = {
    "mapped": {},
    "read ahead by threads, fresh batches": {"images": "streamed", "optim": FRESH, "log_every": 2},
    "fixed memory, float16": {"images": "resident", "graphs": "on", "precision": "float16"},
}


def trained(run: Run, store: ImageStore, world: World, seen: list[tuple[int, bytes]], disturbing: bool) -> bool:
    """Train from where the run is, noting what the iterations are made of; whether it came to its end."""

    class Watched(Training):
        def numbers(self, progress):
            numbers = super().numbers(progress)
            seen.extend((n, b"".join(tensor.numpy().tobytes() for tensor in self.source.draw(n))) for n in numbers)
            if disturbing:
                os.kill(os.getpid(), signal.SIGTERM)
            return numbers

    training = Watched.of(run, batch_source(run.config, store), world)
    world.wait()  # until the first has written the checkpoint
    start = run.restore(training.networks, training.optimizers) if run.checkpoints() else BEGINNING
    world.wait()
    try:
        training.train(start)
    except Interrupted:
        return False
    return True


def both(folder: Path, config: TrainConfig, store: ImageStore, world: World = ALONE) -> tuple[int, list[bool]]:
    """How often the disturbed run was interrupted, and whether its samples, log and last checkpoint are the other's."""
    runs, seen = [], []
    for name in ("undisturbed", "disturbed"):
        if world.first:
            Run.create(folder / name, config, store.path)
        world.wait()
        runs.append(Run.open(folder / name))
        seen.append([])
    assert trained(runs[0], store, world, seen[0], disturbing=False)
    interruptions = 0
    while not trained(runs[1], store, world, seen[1], disturbing=world.first):
        interruptions += 1
    world.wait()
    logs = [(run.folder / "metrics.jsonl").read_bytes() for run in runs]
    files = [{path.name: path.read_bytes() for path in run.latest().iterdir()} for run in runs]
    assert len(files[0]) == 3
    return interruptions, [seen[0] == seen[1], logs[0] == logs[1], files[0] == files[1]]


@pytest.mark.parametrize("mode", MODES)
def test_interrupted_after_every_iteration(mode, store, tmp_path):
    assert both(tmp_path, replace(CONFIG, **MODES[mode]), store) == (3, [True, True, True])


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"impl": "reference"}, {"precision": "bfloat16"}, {"optim": FRESH}])
def test_interrupted_after_every_iteration_with_other_settings(change, store, tmp_path):
    assert both(tmp_path, replace(CONFIG, **change), store) == (3, [True, True, True])


def one_of_two(rank: int, folder: Path, store: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    assert both(folder, CONFIG, ImageStore.open(store), World(rank, 2)) == (3, [True, True, True])
    dist.destroy_process_group()


def test_a_stop_that_has_to_wait_is_told(capfd):
    with stop_requests() as requests:
        os.kill(os.getpid(), signal.SIGINT)
        assert requests.came
    assert "this iteration is finished and saved first; Ctrl-C again stops at once, unsaved" in capfd.readouterr().err


def test_two_processes_interrupted_after_every_iteration(store, tmp_path):
    work_together(2, one_of_two, tmp_path, store.path)
