"""`lorbms-fast evaluate scenes`: swaps of chunks between images, and what comes of the objects."""

from pathlib import Path

from lorbms_fast.commands.options import RunFolder
from lorbms_fast.commands.tables import print_table
from lorbms_fast.config import Count, Natural
from lorbms_fast.devices import device_named
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.datasets.quadrant_objects import NoAnnotations, read_quadrant_objects
from lorbms_fast.evaluation.disentangling.measure import measure_scenes, scene_rows
from lorbms_fast.evaluation.disentangling.retrieval import measure_retrieval, retrieval_rows
from lorbms_fast.run import Run, load_networks
from lorbms_fast.similarity.features import load_extractor
from lorbms_fast.similarity.partial_search import digest_of_weights


def scenes(
    run: RunFolder,
    /,
    *,
    store: Path | None = None,
    annotations: Path | None = None,
    pairs: Count = 1000,
    features: str = "efficientnet-lite0",
    weights: Path | None = None,
    seed: Natural = 0,
    device: str = "auto",
) -> None:
    """Reconstruct images and swap chunks between them: do objects come across, and nothing else?

    Beyond the thesis; docs/evaluation.md defines every number. PSNR and retrieval are measured on any store;
    transfer accuracy, chunk invariance and chunk-to-category need annotated objects, as a composed set and COCO have
    them; without, the rest is measured. Results are kept in RUN/evaluation.

    Args:
        run: Folder of a training run.
        store: Image store; the run's own by default.
        annotations: COCO's instances_*.json; looked for beside the store's photographs by default.
        pairs: Number of swaps, between couples of photographs: no more than eight a couple are made.
        features: Features by which the judge sees quadrants: an extractor as for `lorbms-fast neighbours`.
        weights: Its weights, where it needs some.
        seed: Of the halves and the pairs.
        device: `cpu`, `cuda`, `cuda:1`; auto takes a GPU when there is one.
    """
    where, opened = device_named(device), Run.open(run)
    if (tiles := opened.config.model.tiles) != 4:
        raise UserError(
            f"{run} mixes {tiles} tiles, and objects are told by quadrant: measure a run that mixes quadrants"
        )
    images = opened.open_store(store)
    if images.side != (side := opened.config.model.image_size):
        raise UserError(
            f"{images.path} has images of {images.side} px, {run} of {side}: prepare one with --image-size {side}"
        )
    extractor = load_extractor(features, weights, where)
    judge = features if weights is None else f"{features} of {weights} (sha256 {digest_of_weights(weights)[:8]})"
    networks, iteration = load_networks(run, where), int(opened.latest().name)
    rows, missing = list[tuple[str, str, str]](), None
    try:
        objects = read_quadrant_objects(images, annotations)
    except NoAnnotations as error:
        if annotations is not None:
            raise
        missing = error  # the rest needs none
    else:
        result = measure_scenes(
            networks, images, objects, extractor, run, iteration, features=judge, pairs=pairs, seed=seed, device=where
        )
        rows = scene_rows(result)
    found = measure_retrieval(networks, images, run, iteration, pairs=pairs, seed=seed, device=where)
    title = f"iteration {iteration:,}, {found['pictures']}"
    print_table(["measure", "value [95% interval]", "of"], [*retrieval_rows(found), *rows], title)
    if missing is not None:
        print(f"not measured: transfer accuracy, chunk invariance and chunk-to-category, for {missing}")
