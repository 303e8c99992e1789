"""One training of a search, in slices: Ray Tune decides between them whether and with which settings it goes on."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ray import tune

from lorbms_fast.config import TrainConfig
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.engine.log import read_lines
from lorbms_fast.engine.trainer import Training
from lorbms_fast.run import BEGINNING, Run
from lorbms_fast.search.space import PARTS, chosen
from lorbms_fast.training.setup import batch_source


class Trial(tune.Trainable):
    """A run in its own folder; its checkpoints are the run's."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin a run with the settings drawn for it."""
        base = TrainConfig(**json.loads(config["base"]))
        values = {name: config[name] for name in PARTS if name in config}
        self.every = int(config["every"])
        self.store = ImageStore.open(Path(config["store"]))
        settings = replace(chosen(base, values), log_every=1, sheet_every=10**9, checkpoint_every=10**9)
        self.run_folder = Path(self.logdir) / "run"
        shutil.rmtree(self.run_folder, ignore_errors=True)
        self.lorbms = Run.create(self.run_folder, settings, self.store.path)
        self.done = 0

    def step(self) -> dict[str, Any]:
        """Train for `every` iterations and report means over them."""
        self.done += self.every
        run = replace(self.lorbms, config=replace(self.lorbms.config, iterations=self.done))
        training = Training.of(run, batch_source(run.config, self.store))
        start = run.restore(training.networks, training.optimizers) if run.checkpoints() else BEGINNING
        training.train(start)
        entries = [json.loads(line) for line in read_lines(run.folder / "metrics.jsonl")][-self.every :]
        means = {name: sum(entry[name] for entry in entries) / len(entries) for name in entries[0]}
        return means | {"iteration": self.done}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keep the run's newest checkpoint."""
        newest = self.lorbms.latest()
        shutil.copytree(newest, Path(checkpoint_dir) / newest.name)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Resume from a checkpoint of this run or of a better one."""
        (kept,) = (path for path in Path(checkpoint).iterdir() if path.name.isdigit())
        target = self.run_folder / "checkpoints"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(kept, target / kept.name)
        self.done = int(kept.name)


def parameters(base: TrainConfig, store: Path, every: int) -> dict[str, Any]:
    """Parameters of every trial beside its draws."""
    return {"base": json.dumps(asdict(base)), "store": str(store.resolve()), "every": every}
