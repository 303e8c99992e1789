"""`lorbms-fast evaluate`: the thesis's measurements, one subcommand a table."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from rich.console import Console
from rich.table import Table

from lorbms_fast.checkpoint import Run, load_networks, load_weights
from lorbms_fast.commands.train import batch_source
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.devices import device_named
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.datasets.quadrant_objects import read_quadrant_objects
from lorbms_fast.evaluation.datasets.stl10 import read_stl10
from lorbms_fast.evaluation.disentangling.measure import measure_scenes
from lorbms_fast.evaluation.generation import draw_generation_curves, measure_generation
from lorbms_fast.evaluation.image_features import image_features
from lorbms_fast.evaluation.linear import ROWS, Sources, evaluate_row
from lorbms_fast.evaluation.settings import LinearConfig
from lorbms_fast.models import build
from lorbms_fast.similarity.features import load_extractor


def generation(
    run: tyro.conf.Positional[Path],
    /,
    *,
    stores: tuple[Path, ...] = (),
    inception: Path | None = None,
    features: str | None = None,
    weights: Path | None = None,
    all_checkpoints: bool = False,
    draw: int = 0,
    device: str = "auto",
) -> None:
    """Mixed scenes against real images: FID, IS and KID with 95% intervals (Table 4.4, Figure 3.10).

    Makes one mixed scene for each image of a store (the thesis: tr_v6 and te_v2). FID and IS need the Inception
    weights of 2015 by path; any other features give a distance that is labelled as not FID, with the value between
    two halves of the real images beside it. Results are kept in RUN/evaluation/generation, curves in
    RUN/evaluation/generation.png.

    Args:
        run: Folder of a training run.
        stores: Image stores with neighbours; the run's own by default.
        inception: Weights inception-2015-12-05, e.g. pt_inception-2015-12-05-6726825d.pth.
        features: Instead of Inception: efficientnet-lite0, descriptor, deepcluster, timm:MODEL or torchvision:MODEL.
        weights: Weights of these features, where they need some.
        all_checkpoints: Measure every checkpoint on disk, not only the newest.
        draw: Number of the random draw of candidates.
        device: `cpu`, `cuda`, `cuda:1`; auto takes a GPU when there is one.
    """
    where = device_named(device)
    described = image_features(inception, features, weights, where)
    opened = Run.open(run)
    networks = build(opened.config.model, opened.config.impl)
    table = Table("iteration", "store", described.distance, "two halves of the real", "kernel distance x 1000", "IS")
    for checkpoint in opened.checkpoints() if all_checkpoints else [opened.latest()]:
        load_weights(networks, checkpoint / "model.safetensors")
        for store in stores or (opened.store,):
            source = batch_source(opened.config, ImageStore.open(store))
            result = measure_generation(networks.to(where).eval(), source, described, run, int(checkpoint.name), draw)
            table.add_row(
                f"{result['iteration']:,}",
                result["pictures"],
                interval(result["frechet"]),
                f"{result['frechet_halves']:.1f}",
                interval([1000 * value for value in result["kid"]]),
                interval(result["is"], 2) if "is" in result else "needs --inception",
            )
    Console().print(table)
    print(f"features: {described.setting}")
    if described.distance == "FID":
        print("thesis, epoch 73: FID 137.7 and IS 7.28 +- 0.15 on te_v2; FID 139.7 and IS 7.27 +- 0.17 on tr_v6")
    print(draw_generation_curves(run))


def scenes(
    run: tyro.conf.Positional[Path],
    /,
    *,
    store: Path | None = None,
    annotations: Path | None = None,
    pairs: int = 1000,
    features: str = "efficientnet-lite0",
    weights: Path | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Swap chunks between images with annotated objects: transfer accuracy, chunk invariance, chunk-to-category.

    Beyond the thesis; docs/evaluation.md defines every number. Works on a store prepared from a composed set or from
    COCO. Results are kept in RUN/evaluation/scenes.

    Args:
        run: Folder of a training run.
        store: Image store; the run's own by default.
        annotations: COCO's instances_*.json; looked for beside the store's photographs by default.
        pairs: How many swaps.
        features: What the judge sees quadrants by: an extractor as for `lorbms-fast neighbours`.
        weights: Its weights, where it needs some.
        seed: Of the halves and the pairs.
        device: `cpu`, `cuda`, `cuda:1`; auto takes a GPU when there is one.
    """
    if pairs < 1:
        raise UserError(f"--pairs {pairs}: choose 1 or more")
    where, opened = device_named(device), Run.open(run)
    images = ImageStore.open(store or opened.store)
    objects = read_quadrant_objects(images, annotations)
    extractor = load_extractor(features, weights, where)
    networks, iteration = load_networks(run, where), int(opened.latest().name)
    judge = features if weights is None else f"{features} of {weights}"
    result = measure_scenes(
        networks, images, objects, extractor, run, iteration, features=judge, pairs=pairs, seed=seed, device=where
    )
    table = Table("measure", "value [95% interval]", "of", title=f"iteration {iteration:,}, {result['pictures']}")
    for part in ("transfer_accuracy", "chunk_to_category"):
        for name, found in result[part].items():
            table.add_row(f"{part.replace('_', ' ')}, {name}", percentage(found), f"{found['of']:,}")
    for name, value in result["chunk_invariance"].items():
        table.add_row(f"chunk invariance, {name}", f"{value:.3f}", "")
    Console().print(table)


def percentage(rate: dict[str, Any]) -> str:
    """A rate with its interval."""
    return "none" if rate["percent"] is None else interval([rate["percent"], rate["low"], rate["high"]]) + " %"


def interval(estimate: Sequence[float], digits: int = 1) -> str:
    """A value and its 95% interval."""
    value, low, high = (f"{number:.{digits}f}" for number in estimate)
    return f"{value} [{low}, {high}]"


def linear(
    run: tyro.conf.Positional[Path],
    /,
    *,
    stl10: Path,
    rows: tuple[str, ...] = ("random", "discriminator", "encoder"),
    voc: Path | None = None,
    imagenet: Path | None = None,
    alexnet: Path | None = None,
    keep_features: bool = False,
    device: str = "auto",
    settings: Annotated[LinearConfig, tyro.conf.arg(name="")] = LinearConfig(),  # noqa: B008  # frozen
) -> None:
    """Linear classification on STL-10 by the protocol of Coates et al. (Table 4.3).

    Features of frozen networks are computed once, for all ten folds; the ten classifiers are trained together.
    Finished rows are kept in RUN/evaluation/linear and not computed again; an interrupted one goes on where it was.
    Without a GPU, --views 5 bounds the time: five random views of each picture instead of a new one each epoch.

    Rows: random, random-finetuned, stl10-encoder, pascal-encoder (needs --voc), stl10-alexnet, imagenet-alexnet (needs
    --imagenet or --alexnet), discriminator, discriminator-finetuned, encoder, encoder-finetuned,
    knowledge-transfer-discriminator, knowledge-transfer-encoder; or all.

    Args:
        run: Folder of a training run.
        stl10: Folder stl10_binary of STL-10, or of a set in its format that `lorbms-fast compose` made.
        rows: Which rows.
        voc: Folder of PASCAL VOC.
        imagenet: Folder with a folder of pictures for each class.
        alexnet: Weights of ImageNet AlexNet from an earlier evaluation (evaluation/pretrained/*.safetensors).
        keep_features: Leave computed features on disk.
        device: `cpu`, `cuda`, `cuda:1`; auto takes a GPU when there is one.
        settings: Lengths and sizes.
    """
    names = list(ROWS) if rows == ("all",) else list(rows)
    if unknown := [name for name in names if name not in ROWS]:
        raise UserError(f"there is no row '{unknown[0]}': choose of {', '.join(ROWS)}, or all")
    data = read_stl10(stl10)
    sources = Sources(run, data, settings, device_named(device), voc, imagenet, alexnet)
    title = f"Test accuracy, %. Pictures: {data.test.source}"
    table = Table("row", "here", "thesis", "classifier", "setting", title=title)
    for name in names:
        result = evaluate_row(name, sources, keep_features=keep_features)
        mean, sd = result["thesis"]
        table.add_row(
            result["title"],
            f"{result['accuracy']:.1f} +- {result['sd']:.1f}",
            f"{mean} +- {sd}",
            f"{result['classifier_parameters']:,}",
            result["lengths"],
        )
    Console().print(table)


SUBCOMMANDS: dict[str, Callable[..., None]] = {"generation": generation, "linear": linear, "scenes": scenes}


def for_arguments(arguments: Sequence[str]) -> Any:
    """All subcommands as one type that tyro reads a command line for."""
    return Union[  # noqa: UP007  # of as many as there are
        tuple(Annotated[Any, tyro.conf.subcommand(name, constructor=made)] for name, made in SUBCOMMANDS.items())
    ]
