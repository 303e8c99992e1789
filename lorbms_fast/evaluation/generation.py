"""Generated images against real ones (Section 3.6.2, Table 4.4, Figure 3.10)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.dataloader.batches import NeighbourBatches
from lorbms_fast.dataloader.in_batch import Halves
from lorbms_fast.dataloader.pixels import to_uint8_nhwc
from lorbms_fast.draws import generator
from lorbms_fast.engine.fast import Fast
from lorbms_fast.engine.tiled import Tiled
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.crops import row_batches
from lorbms_fast.evaluation.distances import frechet, halves, inception_score, kernel_distance, split_inception_score
from lorbms_fast.evaluation.features import weights_fingerprint
from lorbms_fast.evaluation.image_features import OTHER_WEIGHTS, Described, ImageFeatures
from lorbms_fast.evaluation.inception import PUBLISHED_SHA256
from lorbms_fast.evaluation.provenance import measured_on
from lorbms_fast.evaluation.results import Result, cached, mean_and_sd, read_result
from lorbms_fast.progress import tqdm
from lorbms_fast.rendering.style import PLOT
from lorbms_fast.types import Networks

BATCH = 32
MIXED_SCENES = 7
"""Purpose of these random draws, unlike a run's other ones."""
SCORES = {"is": "IS", "class_score": f"class score{OTHER_WEIGHTS}"}
"""Key of a score over class probabilities in a result -> its name."""


def check_names(stores: Sequence[Path]) -> None:
    """Raise UserError where two stores have one name, by which results are kept."""
    if len({store.name for store in stores}) < len(stores):
        raise UserError(
            "two stores to measure on have the same name, by which results are kept: name one by a link of another"
        )


def measure_generation(
    networks: Networks, source: NeighbourBatches | Halves, features: ImageFeatures, run: Path, iteration: int,
    draw: int = 0,
) -> Result:  # fmt: skip
    """Measure one mixed scene for each image of a store against all its images; kept in RUN/evaluation/generation.

    Serves `lorbms-fast evaluate generation` and a training loop alike: the networks are put back into the mode they
    were in, and what was measured for these very weights is not measured again.

    `iteration` is the networks' own, `draw` the number of the random draw of candidates.
    """
    store = source.store
    device = next(networks.parameters()).device
    setting = {"weights": weights_fingerprint(networks), "iteration": iteration, "store": store.digest}
    setting |= source.mixing | {"features": features.setting, "seed": source.seed, "draw": draw}
    folder = run / "evaluation" / "generation"

    def make() -> Result:
        training = networks.training
        networks.eval()
        try:
            made = describe_all(mixed_scenes(networks, source, draw, device), len(store), features, "mixed scenes")
        finally:
            networks.train(training)
        real = _real(folder, source, features)
        return {
            **measured_on(store, iteration),
            "images": len(store),
            "distance": features.distance,
            "features": features.setting,
            **_compared(real, made, features.score),
        }

    return cached(folder / f"{iteration:08d}-{store.path.name}-{features.slug}.json", setting, make)


def mixed_scenes(
    networks: Networks, source: NeighbourBatches | Halves, draw: int, device: torch.device
) -> Iterator[NDArray[np.uint8]]:
    """Make one mixed scene for each image of the store, in its order, in batches of uint8 (B, S, S, 3)."""
    for batch in source.each_image(generator(source.seed, MIXED_SCENES, draw), BATCH):
        with torch.inference_mode():
            yield to_uint8_nhwc(Tiled(Fast()).mixed_images(networks, batch.to(device)))


def describe_all(batches: Iterator[NDArray[np.uint8]], count: int, features: ImageFeatures, title: str) -> Described:
    """Compute the features of all images of an iterator, under a progress bar."""
    described: list[Described] = []
    with tqdm(total=count, desc=title, unit="images") as bar:
        for images in batches:
            described.append(features.describe(images))
            bar.update(len(images))
    found = np.concatenate([one.features for one in described])
    probabilities = [one.probabilities for one in described if one.probabilities is not None]
    return Described(found, np.concatenate(probabilities) if probabilities else None)


def draw_generation_curves(run: Path) -> Path | None:
    """Plot everything measured for a run against the iterations (Figure 3.10); None where there is nothing."""
    results = generation_results(run)
    if not results:
        return None
    titles = {"frechet": "Frechet distance", "kid": "kernel distance", **SCORES}
    panels = [panel for panel in titles if any(panel in result for result in results)]
    target = run / "evaluation" / "generation.png"
    with matplotlib.rc_context(PLOT):
        figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for name in sorted({(r["store"], r["distance"]) for r in results if panel in r}):
                lines = [r for r in results if (r["store"], r["distance"]) == name]
                values = np.array([r[panel] for r in lines])
                errors = np.abs(values[:, 1:].T - values[:, 0])
                label = f"{name[0]}: {name[1]}"
                axes.errorbar([r["iteration"] for r in lines], values[:, 0], errors, marker="o", label=label)
            axes.set(title=titles[panel])
            axes.set_xlabel("iteration")
            axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center")
        with atomic_write(target) as partial:
            figure.savefig(partial, format="png", dpi=110)
    return target


def generation_results(run: Path) -> list[Result]:
    """Read all that was measured for a run, by iteration."""
    found = [read_result(path) for path in sorted((run / "evaluation" / "generation").glob("*.json"))]
    results = [_rightly_named(result) for result in found if result]
    return sorted(results, key=lambda result: (result["iteration"], result["store"]))


def score_key(result: Result) -> str | None:
    """Find under which of `SCORES` a result has a score; None where its features give no class probabilities."""
    return next((key for key in SCORES if key in result), None)


class OverTraining(NamedTuple):
    """A measure over the epochs of a run, as Table 4.4 sums it up."""

    pictures: str
    measure: str
    mean: float
    sd: float
    best: float
    iteration: int
    """Iteration of the best."""
    checkpoints: int
    """Number of checkpoints measured."""

    @property
    def summary(self) -> str:
        """Mean, standard deviation and best in words."""
        return f"mean {self.mean:.1f}, sd {self.sd:.1f}, best {self.best:.1f} (iteration {self.iteration:,})"


def over_training(results: Sequence[Result]) -> list[OverTraining]:
    """Sum up each measure of each store over all checkpoints that it was measured at (Table 4.4).

    >>> one = {"pictures": "24 images", "distance": "FID", "features": "weights", "is": [5.0, 4.9, 5.1]}
    >>> two = {"frechet": [200.0, 190, 210], "iteration": 10}, {"frechet": [180.0, 170, 190], "iteration": 20}
    >>> for found in over_training([one | more for more in two]):
    ...     print(found.measure, found.mean, round(found.sd, 1), found.best, found.iteration, found.checkpoints)
    FID 190.0 14.1 180.0 20 2
    IS 5.0 0.0 5.0 10 2
    """
    series: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for result in results:
        values = {result["distance"]: result["frechet"][0]}
        if (key := score_key(result)) is not None:
            values[SCORES[key]] = result[key][0]
        for measure, value in values.items():
            of = series.setdefault((result["pictures"], result["features"], measure), [])
            of.append((result["iteration"], value))
    found = []
    for (pictures, _, measure), points in series.items():
        iteration, best = (max if measure in SCORES.values() else min)(points, key=lambda point: point[1])
        mean, sd = mean_and_sd([value for _, value in points])
        found.append(OverTraining(pictures, measure, mean, sd, best, iteration, len(points)))
    return found


def _rightly_named(result: Result) -> Result:
    """Rename FID and IS in results of earlier versions that other Inception weights gave."""
    if result["distance"] != "FID" or f"sha256 {PUBLISHED_SHA256[:8]}" in result["features"]:
        return result
    named = {name: value for name, value in result.items() if name not in ("is", "is_splits")}
    named |= {name.replace("is", "class_score", 1): result[name] for name in ("is", "is_splits") if name in result}
    return named | {"distance": f"Frechet distance{OTHER_WEIGHTS}"}


def _real(folder: Path, source: NeighbourBatches | Halves, features: ImageFeatures) -> Described:
    """Features of the store's own images, of the side that mixed scenes have, computed once."""
    store = source.store
    path = folder / f"real-{store.digest[:16]}-{features.slug}.npz"
    if path.exists():
        with np.load(path) as kept:
            return Described(kept["features"], kept.get("probabilities"))
    batches = (to_uint8_nhwc(source.images(rows)) for rows in row_batches(len(store), BATCH))
    real = describe_all(batches, len(store), features, "real images")
    arrays = {name: array for name, array in real._asdict().items() if array is not None}
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
    return real


def _compared(real: Described, made: Described, score: str | None) -> Result:
    result: Result = {
        "frechet": frechet(real.features, made.features),
        "frechet_halves": halves(real.features),
        "kid": kernel_distance(real.features, made.features),
    }
    if made.probabilities is not None:
        key = next(key for key, name in SCORES.items() if name == score)
        result[key] = inception_score(made.probabilities)
        result[f"{key}_splits"] = split_inception_score(made.probabilities)
    return result
