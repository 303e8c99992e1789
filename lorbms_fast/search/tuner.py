"""Random search and population based training (Jaderberg et al., 2017) by Ray Tune."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import ray
import torch
from ray import tune
from ray.exceptions import RayError
from ray.tune.schedulers import PopulationBasedTraining

from lorbms_fast.atomic_io import write_json
from lorbms_fast.config import TrainConfig, merged
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.differences import differences
from lorbms_fast.engine.first_use import IN_FORCE
from lorbms_fast.engine.log import read_entries
from lorbms_fast.engine.trainer import Training
from lorbms_fast.errors import UserError
from lorbms_fast.kernels import use_impl
from lorbms_fast.run import BEGINNING, Run
from lorbms_fast.search.space import Space, chosen, ranges
from lorbms_fast.training.setup import batch_source
from lorbms_fast.types import StepMetrics

Method = Literal["random", "pbt"]


class Trial(tune.Trainable):
    """A run in its own folder; its checkpoints are the run's."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin a run with the settings drawn for it."""
        base = TrainConfig(**json.loads(config["base"]))
        values = {name: config[name] for name in Space.__dataclass_fields__ if name in config}
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
        with use_impl(IN_FORCE[run.config.kernels]):
            training.train(start)
        entries = read_entries(run.folder / "metrics.jsonl")[-self.every :]
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


def search(
    base: TrainConfig, space: Space, store: Path, out: Path, *, method: Method, trials: int, slices: int, every: int,
    metric: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train many runs with settings drawn from a space; goes on where an interrupted search of the same OUT was.

    Each of the `trials` reports after `slices` slices of `every` iterations, and is judged by the mean over a slice of
    the log's number `metric`, which is minimized. By the method pbt, bad runs then continue from good ones, with
    perturbed settings. Returns the runs' last numbers, best first: `metric`, the drawn settings, and `folder`. Raises
    UserError if nothing is searched, the search in OUT was begun with other options, or no trial came to an end.
    """
    found = ranges(space)
    if not found:
        raise UserError("every range of the space is a single value: give at least one setting two")
    if metric not in StepMetrics.names():
        raise UserError(f"--metric {metric}: choose one of {', '.join(StepMetrics.names())}")
    _connect()
    draws = {name: tune.loguniform(low, high) for name, (low, high) in found.items()}
    gpus = torch.cuda.device_count()
    trainable = tune.with_resources(Trial, {"cpu": 1, "gpu": 1} if gpus else {"cpu": 1})
    fixed = {"base": json.dumps(asdict(base)), "store": str(store.resolve()), "every": every}
    path = out.resolve()
    goes_on = tune.Tuner.can_restore(str(path))
    asked = {"base": asdict(base), "space": asdict(space), "store": fixed["store"], "method": method}
    _note(path / "asked.json", asked | {"trials": trials, "slices": slices, "every": every, "metric": metric}, goes_on)
    if goes_on:
        tuner = tune.Tuner.restore(str(path), trainable=trainable, resume_errored=True)
    else:
        pbt = PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=1,
            hyperparam_mutations=dict(draws),
            custom_explore_fn=lambda drawn: (
                drawn | {n: min(max(drawn[n], low), high) for n, (low, high) in found.items()}
            ),
        )
        scheduler = pbt if method == "pbt" else None
        tuner = tune.Tuner(
            trainable,
            param_space=fixed | draws,
            tune_config=tune.TuneConfig(
                num_samples=trials, metric=metric, mode="min", scheduler=scheduler, reuse_actors=False
            ),
            run_config=tune.RunConfig(
                name=path.name,
                storage_path=str(path.parent),
                stop={"training_iteration": slices},
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=2, checkpoint_at_end=True),
            ),
        )
    grid = tuner.fit()
    rows = [
        {metric: result.metrics[metric], "iteration": result.metrics["iteration"], "folder": result.path}
        | {name: result.config[name] for name in found}
        for result in (grid[i] for i in range(len(grid)))
        if result.metrics and result.config and metric in result.metrics
    ]
    if not rows:
        raise UserError(f"no trial of {out} came to an end: read error.txt in its folders")
    return sorted(rows, key=lambda row: float(row[metric]))


def _note(path: Path, asked: dict[str, Any], goes_on: bool) -> None:
    """Note what a search is asked for; UserError where it goes on, as it was begun, and was asked otherwise then."""
    if goes_on and path.exists():
        begun = merged({"base": asdict(TrainConfig())}, json.loads(path.read_text()))
        if changed := list(differences(asked, begun)):
            raise UserError(
                f"the search in {path.parent} was begun otherwise ({'; '.join(changed)}): choose another --out"
            )
    write_json(path, asked)


def _connect() -> None:
    """Join the Ray cluster that this machine belongs to, else start one of this machine alone."""
    if ray.is_initialized():
        return
    try:
        ray.init()
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise UserError(
            f"the Ray cluster of RAY_ADDRESS, or that this machine belongs to, does not take this process ({error}): "
            "set RAY_ADDRESS=local to search on this machine alone"
        ) from error
