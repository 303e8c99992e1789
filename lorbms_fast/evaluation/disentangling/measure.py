"""All measures of a run's checkpoint on a store."""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.evaluation.backbones import EncoderBackbone
from lorbms_fast.evaluation.clusters import store_features
from lorbms_fast.evaluation.datasets.quadrant_objects import NONE, QuadrantObjects
from lorbms_fast.evaluation.disentangling.chunk_probe import chunk_to_category
from lorbms_fast.evaluation.disentangling.invariance import changes, invariance
from lorbms_fast.evaluation.disentangling.judge import train_judge
from lorbms_fast.evaluation.disentangling.proportions import Answers, majority, per_quadrant, proportion
from lorbms_fast.evaluation.disentangling.swaps import draw_swaps, swap
from lorbms_fast.evaluation.disentangling.transfer_accuracy import verdicts
from lorbms_fast.evaluation.features import weights_fingerprint
from lorbms_fast.evaluation.provenance import store_source
from lorbms_fast.evaluation.results import Result, cached
from lorbms_fast.evaluation.split import photographs_of, split_photographs
from lorbms_fast.similarity.features.extractor import Extractor
from lorbms_fast.types import Networks


def measure_scenes(
    networks: Networks,
    store: ImageStore,
    objects: QuadrantObjects,
    extractor: Extractor,
    run: Path,
    iteration: int,
    *,
    features: str,
    pairs: int,
    seed: int,
    device: torch.device,
) -> Result:
    """Measure transfer accuracy, chunk invariance and chunk-to-category; kept in RUN/evaluation/scenes.

    One half of the store's photographs teaches the classifiers, the other is swapped and judged.

    The judge learns the extractor's features of quadrants, described by `features`; `pairs` is the number of swaps, see
    `draw_swaps`. The networks are in evaluation mode, on the device.

    Raises:
        UserError: the store is too small, or a half of it shows fewer than two categories.
    """
    setting = {
        "weights": weights_fingerprint(networks),
        "store": store.digest,
        "labels": sha256(objects.labels.tobytes()).hexdigest()[:16],
        "features": features,
        "pairs": pairs,
        "seed": seed,
        "intervals": "photographs resampled",
    }

    def make() -> Result:
        split = split_photographs(store, 0.5, seed)
        with torch.inference_mode():
            chunks = networks.enc(to_float_nchw(store.images[:1]).to(device)).shape[1]
        codes = store_features(EncoderBackbone(networks.enc), store, device).reshape(len(store), chunks, -1)
        judge = train_judge(store, objects, extractor, split.train)
        tested = objects.labels[split.test]
        known = tested != NONE
        right = (judge.sees_in_store(store, split.test) == tested)[known]
        photographs = photographs_of(store)
        answers: dict[str, list[Answers]] = defaultdict(list)
        answers["real: all quadrants"] = [Answers(right, per_quadrant(photographs[split.test])[known])]
        all_swaps = draw_swaps(split.test, photographs, pairs, seed)
        sums: dict[str, float] = defaultdict(float)
        for swaps, made in swap(networks, store, all_swaps, device):
            for name, found in verdicts(swaps, made, objects, judge).items():
                answers[name].append(found)
            for name, value in changes(swaps, made, codes[split.test].mean(0)).items():
                sums[name] += value
        return {
            "iteration": iteration,
            "store": store.path.name,
            "pictures": store_source(store),
            "judge": features,
            "pairs": len(all_swaps.ref),
            "categories": list(objects.classes),
            "transfer_accuracy": {
                **{name: proportion(_together(found)) for name, found in answers.items()},
                "majority": majority(objects.labels, photographs, split),
            },
            "chunk_invariance": invariance(sums),
            "chunk_to_category": chunk_to_category(codes, objects, photographs, split),
        }

    return cached(run / "evaluation" / "scenes" / f"{iteration:08d}-{store.path.name}.json", setting, make)


def _together(parts: Sequence[Answers]) -> Answers:
    return Answers(*(np.concatenate(values) for values in zip(*parts, strict=True)))
