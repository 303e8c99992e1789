"""`lorbms-fast train`: train LORBMS on a store."""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lorbms_fast.atomic_io import exclusive_lock, full_disk_named
from lorbms_fast.config import PRESETS, TrainConfig, read_config
from lorbms_fast.dataloader.batches import Batches, BatchSource
from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.readers import Reader, reader
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.dataloader.within_batch import Halves, NearestInBatch
from lorbms_fast.devices import device_named
from lorbms_fast.differences import differences
from lorbms_fast.engine.distributed import ALONE, World, joined, restarted
from lorbms_fast.engine.oom import out_of_memory_told
from lorbms_fast.engine.signals import Interrupted
from lorbms_fast.engine.trainer import Measure, Training
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.generation import SCORES, draw_generation_curves, measure_generation
from lorbms_fast.evaluation.image_features import image_features
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.models.variants import images_at_once, with_variant
from lorbms_fast.rendering.curves import draw_curves
from lorbms_fast.run import BEGINNING, Progress, Run
from lorbms_fast.types import Networks

READ_AHEAD = 2
"""Batches of photographs that are decoded while one is trained on."""
OF_HALVES = 3
"""What a classifier sees of halves: the mixed image and the two it was made of."""


def for_arguments(arguments: Sequence[str]) -> Callable[..., None]:
    """The command, its settings starting from the preset, the settings file or the run that the arguments name."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    first.add_argument("--variant")
    first.add_argument("--config", type=Path)
    first.add_argument("--resume", type=Path)
    named, _ = first.parse_known_args([a for a in arguments if a not in ("-h", "--help")])
    if named.resume is not None and (given := [n for n in ("preset", "variant") if getattr(named, n) is not None]):
        raise UserError(
            f"{' and '.join(f'--{name} {getattr(named, name)}' for name in given)} would begin another run than "
            f"{named.resume}, which has settings of its own: leave it out, and change single ones by their names"
        )
    base = _base(named.preset, named.resume)
    if named.config is not None:
        base = read_config(named.config, base)
    if named.variant is not None:
        base = with_variant(base, named.variant)
    preset_named, variant_named = named.preset or "thesis", named.variant or "thesis"

    def train(
        store: tyro.conf.Positional[Path | None] = None,
        /,
        *,
        out: Path | None = None,
        resume: Path | None = None,
        other_images: bool = False,
        preset: str = preset_named,
        variant: str = variant_named,
        config: Path | None = None,
        settings: Annotated[TrainConfig, tyro.conf.arg(name="")] = base,
    ) -> None:
        """Train LORBMS on a store that has neighbours.

        Writes checkpoints, metrics.jsonl, TensorBoard logs, sample sheets and loss curves into the run's folder.
        Ctrl-C or SIGTERM saves a checkpoint first; `--resume RUN` goes on from the newest one. For several GPUs:
        `torchrun --standalone --nproc-per-node 8 --max-restarts 3 -m lorbms_fast train STORE --out RUN`; every process
        takes its own batches of --batch-size images, and the run may be resumed by another number of processes.

        Args:
            store: Image store made by `lorbms-fast prepare`, with neighbours by `lorbms-fast neighbours`; for a run
                that is resumed, the place where its store is now.
            out: Folder of the new run; with --resume, of a copy that goes on from the newest checkpoint instead of the
                run itself.
            resume: Folder of a run to continue; it remembers its store and its settings, also those given here.
            other_images: Let a run that is resumed go on with a store of other images.
            preset: Settings to start from: thesis (the headline run) or demo (small networks, minutes on a CPU).
            variant: What to change in these settings for a system of Appendix D: `lorbms-fast info` lists them.
            config: TOML or JSON file with settings that replace the preset's, or those of the run that is resumed.
            settings: Any single setting.
        """
        with joined() as world:
            if resume is not None:
                run = Run.open(resume)
                begun, wanted = asdict(run.config.model), asdict(settings.model)
                if changed := list(differences(wanted, begun, "model")):
                    raise UserError(
                        f"{resume} was begun with another model: {'; '.join(changed)}; start a new run with --out"
                    )
                images = run.open_store(store)
                run.on(images, other_images)
                if out is not None and out.resolve() != resume.resolve():
                    run = _new(out, world, run.fork)
            elif store is None or out is None:
                raise UserError(
                    "name a store and a new run's folder: lorbms-fast train STORE --out RUN (or --resume RUN)"
                )
            else:
                images = ImageStore.open(store)
                run = _new(out, world, lambda folder: Run.create(folder, settings, store))
            run_training(replace(run, config=settings), images, world, other_images)

    return train


def _base(preset: str | None, resumed: Path | None) -> TrainConfig:
    """The settings that the command line changes."""
    if resumed is not None:
        return Run.open(resumed).config
    if preset not in (None, *PRESETS):
        raise UserError(f"there is no preset '{preset}': choose one of {', '.join(PRESETS)}")
    return PRESETS[preset or "thesis"]


def _new(out: Path, world: World, make: Callable[[Path], Run]) -> Run:
    """The new run's folder, made by the first process; the run itself where torchrun starts a failed one again."""
    if world.first and not (restarted() and (out / "run.json").exists()):
        make(out)
    world.wait()
    return Run.open(out)


def run_training(run: Run, store: ImageStore, world: World = ALONE, other_images: bool = False) -> None:
    """Train a run to its end, from its newest checkpoint if it has one, and draw its curves.

    Args:
        run: its folder, settings and progress.
        store: the images; where they are now is noted in the run.
        world: the processes that train together.
        other_images: whether they may be others than before.

    Raises:
        UserError: another process is training it, or something the user can mend came in between.
    """
    run = run.on(store, other_images)
    with (
        exclusive_lock(run.folder, f"is training {run.folder}") if world.first else nullcontext(),
        full_disk_named(run.folder),
    ):
        if world.first:
            run.tidy()
        retain_freed_memory()
        source = batch_source(run.config, store)
        with out_of_memory_told(run.config, device_named(run.config.device)):
            _train(run, source, world)


def _train(run: Run, source: Batches, world: World) -> None:
    training = Training.of(run, source, world)
    if world.first:
        run.check_space(training.networks, training.optimizers)
    start = run.restore(training.networks, training.optimizers) if run.checkpoints() else BEGINNING
    world.wait()  # until all have read the checkpoint, which the first may soon replace
    if training.last_iteration(start) <= start.iteration:
        if world.first:
            print(_nothing_to_do(training, start))
        return
    if world.first:
        run.keep()
        print(_summary(training, start))
    stopped = 0
    try:
        training.train(start, _measure(run, source.store) if world.first else None)
    except Interrupted as stop:
        stopped = stop.iteration
    if world.first:
        draw_curves(run.folder / "metrics.jsonl", run.folder / "curves.png")
        if stopped:
            print(f"stopped after iteration {stopped}: go on with  lorbms-fast train --resume {run.folder}")
        else:
            print(f"done: {run.latest()}, {run.folder / 'curves.png'}, {run.folder / 'sheets'}")
    if stopped:
        sys.exit(130)


def _measure(run: Run, store: ImageStore) -> Measure | None:
    """What compares mixed scenes with a store's images while the run goes on, where its settings ask for it."""
    asked = run.config.evaluation
    if asked.inception is None and asked.features is None:
        return None
    inception, weights = (None if path is None else Path(path) for path in (asked.inception, asked.weights))
    features = image_features(inception, asked.features, weights, device_named(run.config.device))
    source = scene_batches(run.config, store)

    def measure(networks: Networks, iteration: int) -> dict[str, float]:
        result = measure_generation(networks, source, features, run.folder, iteration)
        draw_generation_curves(run.folder)
        measured = {name: result[name] for name in ("frechet", "kid", *SCORES) if name in result}
        return {f"generation/{name}": value for name, (value, *_) in measured.items()}

    return measure


def batch_source(config: TrainConfig, store: ImageStore) -> Batches:
    """The batches that a config trains on, from a store and, where candidates are drawn from them, its neighbours."""
    mixing, tiles, classifier = config.mixing, config.model.tiles, config.model.classifier
    if (mixing.candidates == "halves") != (images_at_once(classifier) == OF_HALVES):
        raise UserError(
            f"--mixing.candidates {mixing.candidates} does not go with --model.classifier {classifier}: "
            "halves mixes two images and needs the classifier of nine-tiles or hu, and these need halves"
        )
    if mixing.candidates == "halves":
        return Halves(store, config.batch_size, config.seed, tiles, *_reading(config, store))
    if tiles != 4:
        raise UserError(f"--model.tiles {tiles} needs --mixing.candidates halves: the others are for quadrants")
    if mixing.candidates == "batch":
        return NearestInBatch(store, config.batch_size, config.seed, mixing.tau, *_reading(config, store))
    return neighbour_batches(config, store)


def scene_batches(config: TrainConfig, store: ImageStore) -> BatchSource | Halves:
    """What mixed scenes are measured on: candidates from the neighbours, also for a config that trains on others.

    Tiles that are no quadrants have no neighbours: there another image is taken, and a random mask.
    """
    if (tiles := config.model.tiles) == 4:
        return neighbour_batches(config, store)
    return Halves(store, config.batch_size, config.seed, tiles, *_reading(config, store))


def neighbour_batches(config: TrainConfig, store: ImageStore) -> BatchSource:
    """Batches with candidates from a store's neighbours."""
    mixing = config.mixing
    candidates: Literal["independent", "shared-rank"] = (
        "shared-rank" if mixing.candidates == "shared-rank" else "independent"
    )
    reading = _reading(config, store)
    table = NeighbourTable.load(store)
    tau = table.tau if mixing.tau is None else mixing.tau
    return BatchSource(store, table, config.batch_size, config.seed, tau, candidates, *reading)


def _reading(config: TrainConfig, store: ImageStore) -> tuple[Reader, int]:
    """How to read a store's images, and how many batches ahead."""
    read = reader(store, config.images, config.model.image_size, device_named(config.device))
    return read, READ_AHEAD if config.images == "streamed" else 0


def _nothing_to_do(training: Training, start: Progress) -> str:
    config = training.run.config
    end = f"--epochs {config.epochs:g}" if config.iterations is None else f"--iterations {config.iterations}"
    return (
        f"nothing to do: {training.run.folder} has finished {start.iteration:,} iterations, "
        f"and {end} asks for no more: raise it to go on"
    )


def _summary(training: Training, start: Progress) -> str:
    config = training.run.config
    processes = "1 process" if training.world.size == 1 else f"{training.world.size} processes"
    count = sum(parameter.numel() for parameter in training.networks.parameters())
    return (
        f"{count:,} parameters, {len(training.source.store):,} images, batch {config.batch_size}, impl {config.impl}, "
        f"{training.arithmetic}, {training.device}, {processes}; "
        f"iterations {start.iteration:,} to {training.last_iteration(start):,}"
    )
