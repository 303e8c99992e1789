"""A run from its newest checkpoint to its end: built, trained, drawn and measured."""

import sys
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from lorbms_fast.atomic_io import exclusive_lock, full_disk_named, write_text
from lorbms_fast.counted import counted
from lorbms_fast.dataloader.batches import BatchSource
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.devices import device_named
from lorbms_fast.engine.distributed import ALONE, World
from lorbms_fast.engine.first_use import IN_FORCE
from lorbms_fast.engine.first_use.verdicts import as_json
from lorbms_fast.engine.log import read_entries, read_lines
from lorbms_fast.engine.oom import out_of_memory_told
from lorbms_fast.engine.signals import Interrupted
from lorbms_fast.engine.trainer import Measure, Training, what_is_left
from lorbms_fast.errors import UserError, as_word
from lorbms_fast.evaluation.generation import SCORES, check_names, draw_generation_curves, measure_generation
from lorbms_fast.evaluation.image_features import image_features
from lorbms_fast.kernels import use_impl
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.psnr import blur_levels
from lorbms_fast.rendering.curves import draw_curves
from lorbms_fast.rendering.scenes import scene_sheet
from lorbms_fast.run import BEGINNING, Progress, Run
from lorbms_fast.training.setup import batch_source, scene_batches
from lorbms_fast.types import Networks

SHEET = partial(scene_sheet, made=("I_mix", "I_hat", "I_prime"))
BLURRED = 200
"""Max. number of images whose blurs the curves show for comparison."""


def run_training(
    run: Run, store: ImageStore, world: World = ALONE, other_images: bool = False, retune: bool = False
) -> None:
    """Train a run to its end, from its newest checkpoint if it has one, and draw its curves.

    Where the store is now is noted in the run; `other_images` allows images that it has not learned from. `retune`
    tries kernels again that were tried on this machine before. Raises UserError if another process is training it, and
    Interrupted after SIGINT, SIGTERM or SIGHUP, when everything is on disk.
    """
    run = run.on(store, other_images)
    in_a_copy = f"go on in a copy:  lorbms-fast train --resume {as_word(run.folder)} --out NEW"
    with (
        exclusive_lock(run.folder, f"is training {run.folder}", in_a_copy) if world.first else nullcontext(),
        full_disk_named(run.folder, in_a_copy),
    ):
        if world.first:
            run.tidy()
        retain_freed_memory()
        source = batch_source(run.config, store)
        memory_told = out_of_memory_told(run.config.batch_size, device_named(run.config.device))
        with memory_told, use_impl(IN_FORCE[run.config.kernels]):
            _train(run, source, world, retune)


def _train(run: Run, source: BatchSource, world: World, retune: bool) -> None:
    training = Training.of(run, source, world)
    if world.first:
        run.check_space(training.networks, training.optimizers)
    start = run.restore(training.networks, training.optimizers) if run.checkpoints() else _beginning(run)
    world.wait()  # until all have read the checkpoint, which the first may soon replace
    if training.last_iteration(start) <= start.iteration:
        if world.first:
            replace(run, config=Run.open(run.folder).config).keep()  # where the store is now, and no settings
            print(_nothing_to_do(training, start))
            try:
                if _curves_are_old(run.folder):
                    _draw_curves(run, source)
            except (OSError, UserError) as error:  # numbers of an older version, or images that are gone, perhaps
                print(f"{run.folder / 'curves.png'} is not drawn anew: {error}", file=sys.stderr)
        return
    measure = _measure(run, source.store) if world.first else None  # before forms are tried, and settings kept
    with run.kept() if world.first else nullcontext():
        if world.first:
            print(_summary(training, start))
        if (found := training.choose_forms(start, retune)) is not None and world.first:
            found.tell()
            write_text(run.folder / "kernels.json", as_json(found.facts()))
        try:
            training.train(start, SHEET, measure)
        except Interrupted as stop:
            if world.first:
                _draw_curves(run, source)
                last = training.last_iteration(start)
                left = "go on with" if stop.iteration < last else "the last; its scenes are not measured yet:"
                command = f"lorbms-fast {what_is_left(stop.iteration, last)} {as_word(run.folder)}"
                with suppress(OSError):  # a terminal that is closed
                    print(f"stopped after iteration {stop.iteration}: {left}  {command}")
            raise
    if world.first:  # the others may be here before the last checkpoint is
        _draw_curves(run, source)
        made = (run.latest(), run.folder / "curves.png", run.folder / "sheets")
        print(f"done: {', '.join(str(path) for path in made if path.exists())}")


def _beginning(run: Run) -> Progress:
    """Begin a run that has no checkpoint; UserError where it wrote some, which are gone."""
    metrics, every = run.folder / "metrics.jsonl", Run.open(run.folder).config.checkpoint_every
    learned = int(max((entry.get("iteration", 0) for entry in read_entries(metrics)), default=0))
    if learned >= every:
        raise UserError(
            f"{metrics} has {counted(learned, 'iteration')}, and no checkpoint is there any more: "
            f"copy one back to {run.folder / 'checkpoints'}, or remove {metrics.name} to begin again"
        )
    return BEGINNING


def _draw_curves(run: Run, source: BatchSource) -> None:
    some = source.images(np.arange(min(len(source.store), BLURRED)))
    draw_curves(run.folder / "metrics.jsonl", run.folder / "curves.png", blur_levels(some))


def _curves_are_old(folder: Path) -> bool:
    """Tell whether a run's curves are missing or older than its numbers, as after a Ctrl-C while they were drawn."""
    curves, metrics = folder / "curves.png", folder / "metrics.jsonl"
    return bool(read_lines(metrics)) and not (curves.exists() and curves.stat().st_mtime >= metrics.stat().st_mtime)


def _measure(run: Run, store: ImageStore) -> Measure | None:
    """Make the measurement of mixed scenes that settings ask for, if they do, on this store or on those they name.

    Raises UserError where it cannot be made.
    """
    asked = run.config.evaluation
    if not (asked.inception or asked.features or asked.weights or asked.stores):
        return None
    inception, weights = (None if path is None else Path(path) for path in (asked.inception, asked.weights))
    features = image_features(inception, asked.features, weights, device_named(run.config.device))
    check_names([Path(path) for path in asked.stores])
    sources = [scene_batches(run.config, one) for one in [ImageStore.open(path) for path in asked.stores] or [store]]

    def measure(networks: Networks, iteration: int) -> dict[str, float]:
        measured: dict[str, float] = {}
        for source in sources:
            result = measure_generation(networks, source, features, run.folder, iteration)
            kind = f"generation/{source.store.path.name}" if asked.stores else "generation"
            measured |= {f"{kind}/{name}": result[name][0] for name in ("frechet", "kid", *SCORES) if name in result}
        draw_generation_curves(run.folder)
        return measured

    return measure


def _nothing_to_do(training: Training, start: Progress) -> str:
    config = training.run.config
    end = f"--epochs {config.epochs:g}" if config.iterations is None else f"--iterations {config.iterations}"
    return (
        f"nothing to do: {training.run.folder} has finished {counted(start.iteration, 'iteration')}, "
        f"and {end} asks for no more: raise it to go on"
    )


def _summary(training: Training, start: Progress) -> str:
    config = training.run.config
    processes = "1 process" if training.world.size == 1 else f"{training.world.size} processes"
    count = sum(parameter.numel() for parameter in training.networks.parameters())
    return (
        f"{count:,} parameters, {counted(len(training.source.store), 'image')}, batch {config.batch_size}, "
        f"impl {config.impl}, {training.arithmetic}, {training.device}, {processes}; "
        f"iterations {start.iteration:,} to {training.last_iteration(start):,}"
    )
