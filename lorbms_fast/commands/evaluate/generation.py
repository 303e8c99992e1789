"""`lorbms-fast evaluate generation`: mixed scenes against real images."""

from dataclasses import replace
from pathlib import Path

from lorbms_fast.checkpoint import load
from lorbms_fast.commands.options import RunFolder
from lorbms_fast.commands.tables import print_table
from lorbms_fast.config import Natural
from lorbms_fast.devices import device_named
from lorbms_fast.evaluation.generation import (
    SCORES,
    check_names,
    draw_generation_curves,
    generation_results,
    measure_generation,
    over_training,
    score_key,
)
from lorbms_fast.evaluation.image_features import image_features
from lorbms_fast.evaluation.provenance import AUTHOR_LOGS, table_4_4
from lorbms_fast.evaluation.results import interval
from lorbms_fast.models import build
from lorbms_fast.run import Run
from lorbms_fast.training.setup import scene_batches


def generation(
    run: RunFolder,
    /,
    *,
    stores: tuple[Path, ...] = (),
    inception: Path | None = None,
    features: str | None = None,
    weights: Path | None = None,
    all_checkpoints: bool = False,
    draw: Natural = 0,
    device: str = "auto",
) -> None:
    """Measure mixed scenes against real images: FID, IS and KID with 95% intervals (Table 4.4, Figure 3.10).

    Makes one mixed scene for each image of a store (the thesis: tr_v6 of COCO's train2017, te_v2 of its test2017). FID
    and IS need the published Inception weights of 2015 by path; any other features or weights give a distance that is
    called otherwise, with the value between two halves of the real images beside it. Where a run has been measured
    more than once, mean, standard deviation and best are printed too, as Table 4.4 has them. Results are kept in
    RUN/evaluation/generation, curves in RUN/evaluation/generation.png.

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
    check_names(stores)
    where = device_named(device)
    described = image_features(inception, features, weights, where)
    opened = Run.open(run)
    networks = build(opened.config.model, opened.config.impl)
    config = replace(opened.config, device=device)
    sources = [scene_batches(config, opened.open_store(store)) for store in stores or (None,)]
    rows = []
    for checkpoint in opened.checkpoints() if all_checkpoints else [opened.latest()]:
        load(networks, checkpoint)
        for source in sources:
            result = measure_generation(networks.to(where).eval(), source, described, run, int(checkpoint.name), draw)
            found = [f"{result['iteration']:,}", result["store"], interval(result["frechet"])]
            found += [f"{result['frechet_halves']:.1f}", interval([1000 * value for value in result["kid"]])]
            rows.append(found + ([interval(result[key], 2)] if (key := score_key(result)) else []))
    columns = ["iteration", "store", described.distance, "two halves of the real", "kernel distance x 1000"]
    print_table(columns + ([described.score] if described.score else []), rows)
    results = generation_results(run)
    for pictures in sorted({result["pictures"] for result in results}):
        print(f"images: {pictures}")
    for one in over_training(results):
        if one.checkpoints > 1:
            print(f"over {one.checkpoints} checkpoints, {one.pictures}: {one.measure} {one.summary}")
    print(f"features: {described.setting}")
    if described.score == SCORES["is"]:
        print(f"thesis, Table 4.4: FID {table_4_4('FID')}; IS {table_4_4('IS')}")
        print(AUTHOR_LOGS)
    print(draw_generation_curves(run))
