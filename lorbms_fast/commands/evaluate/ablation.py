"""`lorbms-fast evaluate ablation`: what each loss is for."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from lorbms_fast.commands.options import StoreFolder
from lorbms_fast.commands.tables import print_table
from lorbms_fast.config import Count, Epochs, LossConfig, TrainConfig, preset_named
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.devices import device_named
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.ablation import BEYOND, PAIRS, VARIANTS, ablation_rows, variant_config
from lorbms_fast.evaluation.datasets.stl10 import read_stl10
from lorbms_fast.evaluation.disentangling.retrieval import measure_retrieval
from lorbms_fast.evaluation.generation import measure_generation
from lorbms_fast.evaluation.image_features import image_features
from lorbms_fast.evaluation.linear import evaluate_row
from lorbms_fast.evaluation.pretraining import Sources
from lorbms_fast.evaluation.probe import LinearConfig
from lorbms_fast.run import Run, load_networks
from lorbms_fast.training.session import run_training
from lorbms_fast.training.setup import scene_batches


def ablation(
    store: StoreFolder,
    /,
    *,
    out: Path,
    stl10: Path,
    inception: Path | None = None,
    features: str | None = None,
    weights: Path | None = None,
    measured: Path | None = None,
    epochs: Epochs = 10,
    iterations: Count | None = None,
    preset: str = "thesis",
    config: Path | None = None,
    variants: tuple[str, ...] = tuple(VARIANTS),
    device: str = "auto",
    linear: Annotated[LinearConfig, tyro.conf.arg(name="")] = LinearConfig(),  # noqa: B008  # frozen
) -> None:
    """Train LORBMS whole and without each of its losses, ten epochs each, and measure all (Table 4.5).

    Every variant is a run in OUT; STL-10 is the linear probe of its encoder. FID and IS are those of its mixed scenes,
    measured after every epoch and averaged over the last three. Beside them, beyond the thesis: PSNR of the
    reconstructions, and how often a transferred quadrant resembles its own photograph most. Interrupted, it goes on
    where it was.

    Args:
        store: Image store with neighbours to train on.
        out: Folder for the runs.
        stl10: Folder stl10_binary of STL-10, or of a set in its format that `lorbms-fast compose` made.
        inception: Weights inception-2015-12-05 for FID and IS; others' distance and score get other names. Where
            neither these nor features are named, those of `evaluation` in --config are taken.
        features: Instead of Inception: efficientnet-lite0 or another extractor; the result is not FID.
        weights: Weights of these features, where they need some.
        measured: Image store with neighbours whose images mixed scenes are made of and compared with, such as te_v2; by
            default the one that `evaluation.stores` of --config names, or the one that is trained on.
        epochs: Length of each training in passes over the store.
        iterations: Length in iterations instead.
        preset: Settings to start from: thesis or demo; the losses have the thesis's weights in both.
        config: TOML or JSON file with settings that replace the preset's.
        variants: Variants to train, of full, no-cls, no-rec, no-adv.
        device: `cpu`, `cuda`, `cuda:1`; auto takes a GPU when there is one.
        linear: Lengths and sizes of the linear probe.
    """
    where = device_named(device)
    base = replace(preset_named(preset, config, LossConfig()), epochs=epochs, iterations=iterations, device=device)
    if inception is None and features is None and weights is None:
        kept = base.evaluation
        inception, weights = (None if path is None else Path(path) for path in (kept.inception, kept.weights))
        features = kept.features
    described = image_features(inception, features, weights, where)
    pictures, images = read_stl10(stl10), ImageStore.open(store)
    files = [None if path is None else str(path.resolve()) for path in (inception, weights)]
    named = base.evaluation.stores if measured is None else (measured,)
    if len(named) > 1:
        raise UserError(f"the table is of one store, evaluation.stores names {len(named)}: choose one by --measured")
    on = ImageStore.open(named[0] if named else store)
    stores = (str(on.path.resolve()),) if named else ()
    asked = replace(base.evaluation, inception=files[0], features=features, weights=files[1], stores=stores)
    configs = {name: variant_config(base, name, asked) for name in variants}  # before the first is trained
    for name, settings in configs.items():
        run = _trained(out / name, settings, images)
        evaluate_row("encoder", Sources(run.folder, pictures, linear, where))
        networks = load_networks(run.folder, where)
        source = scene_batches(run.config, on)
        iteration = int(run.latest().name)
        measure_generation(networks, source, described, run.folder, iteration)
        measure_retrieval(networks, images, run.folder, iteration, pairs=PAIRS, seed=0, device=where)
    _print(ablation_rows(out), described.distance, described.score or "IS")
    print(f"STL-10 column: {pictures.test.source}")
    print(f"distance: {described.setting}; means over the last epochs that were measured, three in the thesis")


def _trained(folder: Path, config: TrainConfig, store: ImageStore) -> Run:
    """Train a variant's run to its end; its device, and how its epochs are measured, may change."""
    if not (folder / "run.json").exists():
        Run.create(folder, config, store.path)
    opened = Run.open(folder)
    if replace(opened.config, evaluation=config.evaluation, device=config.device) != config:
        raise UserError(f"{folder} was trained with other settings: choose another --out or remove it")
    run = replace(opened, config=config)
    run_training(run, store)
    return run


def _print(rows: list[list[str]], distance: str, score: str) -> None:
    """Print a column for each variant: eleven for what is measured do not fit in a terminal."""
    measures = "STL-10 here", "thesis", f"{distance} here", "FID, thesis", f"{score} here", "IS, thesis", *BEYOND
    titles, *cells = zip(*rows, strict=True)
    print_table(["", *titles], [[measure, *of_each] for measure, of_each in zip(measures, cells, strict=True)])
