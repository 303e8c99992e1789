"""Random search and population based training (Jaderberg et al., 2017) by Ray Tune."""

from pathlib import Path
from typing import Any, Literal

import torch
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from lorbms_fast.config import TrainConfig
from lorbms_fast.errors import UserError
from lorbms_fast.search.space import Space, ranges
from lorbms_fast.search.trial import Trial, parameters

Method = Literal["random", "pbt"]


def search(
    base: TrainConfig,
    space: Space,
    store: Path,
    out: Path,
    *,
    method: Method,
    trials: int,
    slices: int,
    every: int,
    metric: str,
) -> list[dict[str, Any]]:
    """Train many runs with settings drawn from a space; goes on where an interrupted search of the same OUT was.

    Each of the `trials` reports after `slices` slices of `every` iterations, and is judged by the mean over a slice of
    the log's number `metric`, which is minimized. By the method pbt, bad runs then continue from good ones, with
    perturbed settings. Returns the runs' last numbers, best first: `metric`, the drawn settings, and `folder`. Raises
    UserError if nothing is searched, or no trial came to an end.
    """
    found = ranges(space)
    if not found:
        raise UserError("every range of the space is a single value: give at least one setting two")
    draws = {name: tune.loguniform(low, high) for name, (low, high) in found.items()}
    gpus = torch.cuda.device_count()
    trainable = tune.with_resources(Trial, {"cpu": 1, "gpu": 1} if gpus else {"cpu": 1})
    path = out.resolve()
    if tune.Tuner.can_restore(str(path)):
        tuner = tune.Tuner.restore(str(path), trainable=trainable, resume_errored=True)
    else:
        pbt = PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=1,
            hyperparam_mutations=dict(draws),
            custom_explore_fn=lambda config: _inside(config, found),
        )
        scheduler = pbt if method == "pbt" else None
        tuner = tune.Tuner(
            trainable,
            param_space=parameters(base, store, every) | draws,
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
    results = [grid[i] for i in range(len(grid))]
    results = [result for result in results if result.metrics and metric in result.metrics]
    if not results:
        raise UserError(f"no trial of {out} came to an end: read error.txt in its folders")
    rows = [
        {metric: result.metrics[metric], "iteration": result.metrics["iteration"], "folder": result.path}
        | {name: result.config[name] for name in found}
        for result in results
        if result.metrics is not None and result.config is not None
    ]
    return sorted(rows, key=lambda row: float(row[metric]))


def _inside(config: dict[str, Any], found: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """Clamp perturbed settings to their ranges."""
    return config | {name: min(max(config[name], low), high) for name, (low, high) in found.items()}
