"""All measures of a run's checkpoint on a store."""

from collections import defaultdict
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lorbms_fast.dataloader.pixels import to_network
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.evaluation.backbones import EncoderBackbone
from lorbms_fast.evaluation.clusters import store_features
from lorbms_fast.evaluation.datasets.quadrant_objects import NONE, QuadrantObjects
from lorbms_fast.evaluation.disentangling.chunk_probe import chunk_to_category
from lorbms_fast.evaluation.disentangling.invariance import changes, invariance
from lorbms_fast.evaluation.disentangling.judge import train_judge
from lorbms_fast.evaluation.disentangling.proportions import majority, rate
from lorbms_fast.evaluation.disentangling.swaps import draw_swaps, swap
from lorbms_fast.evaluation.disentangling.transfer_accuracy import verdicts
from lorbms_fast.evaluation.features import weights_fingerprint
from lorbms_fast.evaluation.provenance import store_source
from lorbms_fast.evaluation.results import Result, cached
from lorbms_fast.evaluation.split import split_photographs
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
    """Transfer accuracy, chunk invariance and the chunk-to-category probe; kept in RUN/evaluation/scenes.

    One half of the store's photographs teaches the classifiers, the other is swapped and judged.

    Args:
        networks: in evaluation mode, on the device.
        store: images to swap between.
        objects: what stands in their quadrants.
        extractor: features of quadrants for the judge.
        run: the run's folder.
        iteration: how many iterations the networks have seen.
        features: what the extractor is, in words.
        pairs: how many swaps.
        seed: of halves and pairs.
        device: where to compute.

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
    }

    def make() -> Result:
        split = split_photographs(store, 0.5, seed)
        with torch.inference_mode():
            chunks = networks.enc(to_network(store.images[:1]).to(device)).shape[1]
        codes = store_features(EncoderBackbone(networks.enc), store, device).reshape(len(store), chunks, -1)
        judge = train_judge(store, objects, extractor, split.train)
        tested = objects.labels[split.test]
        real = (judge.sees_in_store(store, split.test) == tested)[tested != NONE]
        answers: dict[str, list[NDArray[np.bool_]]] = defaultdict(list)
        sums: dict[str, float] = defaultdict(float)
        for swaps, made in swap(networks, store, draw_swaps(split.test, pairs, seed), device):
            for name, right in verdicts(swaps, made, objects, judge).items():
                answers[name].append(right)
            for name, value in changes(swaps, made, codes[split.test].mean(0)).items():
                sums[name] += value
        return {
            "iteration": iteration,
            "store": store.path.name,
            "pictures": store_source(store),
            "judge": features,
            "pairs": pairs,
            "categories": list(objects.classes),
            "transfer_accuracy": {
                "real: all quadrants": rate(real),
                **{name: rate(np.concatenate(right)) for name, right in answers.items()},
                "majority": majority(objects.labels, split),
            },
            "chunk_invariance": invariance(sums),
            "chunk_to_category": chunk_to_category(codes, objects, split),
        }

    return cached(run / "evaluation" / "scenes" / f"{iteration:08d}-{store.path.name}.json", setting, make)
