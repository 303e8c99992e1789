"""Transfer accuracy, chunk invariance and chunk-to-category of a run's checkpoint on a store."""

from collections import defaultdict
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lorbms_fast.dataloader.pixels import to_uint8_nhwc
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.evaluation.datasets.quadrant_objects import NONE, QuadrantObjects
from lorbms_fast.evaluation.disentangling.judge import Judge, train_judge
from lorbms_fast.evaluation.disentangling.logistic import fit_logistic
from lorbms_fast.evaluation.disentangling.proportions import Answers, majority, per_quadrant, proportion
from lorbms_fast.evaluation.disentangling.swaps import Swapped, Swaps, draw_swaps, swap
from lorbms_fast.evaluation.features import store_features, weights_fingerprint
from lorbms_fast.evaluation.provenance import measured_on
from lorbms_fast.evaluation.results import Result, cached, percentage
from lorbms_fast.evaluation.split import Split, photographs_of, split_photographs
from lorbms_fast.similarity.features.extractor import Extractor
from lorbms_fast.tiles import replaced_chunks, tile_of_chunk
from lorbms_fast.types import Networks


def measure_scenes(
    networks: Networks, store: ImageStore, objects: QuadrantObjects, extractor: Extractor, run: Path, iteration: int,
    *, features: str, pairs: int, seed: int, device: torch.device,
) -> Result:  # fmt: skip
    """Measure transfer accuracy, chunk invariance and chunk-to-category; kept in RUN/evaluation/scenes.

    One half of the store's photographs teaches the classifiers, the other is swapped and judged.

    The judge learns the extractor's features of quadrants, described by `features`; `pairs` is the number of swaps, see
    `draw_swaps`. The networks are in evaluation mode, on the device. Raises UserError if the store is too small, or a
    half of it shows fewer than two categories.
    """
    labels = sha256(objects.labels.tobytes()).hexdigest()[:16]
    setting: Result = {"weights": weights_fingerprint(networks), "store": store.digest, "labels": labels}
    setting |= {"features": features, "pairs": pairs, "seed": seed, "intervals": "photographs resampled"}

    def make() -> Result:
        split = split_photographs(store, 0.5, seed)
        codes = store_features(networks.enc, store, device)
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
            **measured_on(store, iteration),
            "judge": features,
            "pairs": len(all_swaps.ref),
            "categories": list(objects.classes),
            "transfer_accuracy": {
                **{name: proportion(Answers.together(found)) for name, found in answers.items()},
                "majority": majority(objects.labels, photographs, split),
            },
            "chunk_invariance": invariance(sums),
            "chunk_to_category": chunk_to_category(codes, objects, photographs, split),
        }

    return cached(run / "evaluation" / "scenes" / f"{iteration:08d}-{store.path.name}.json", setting, make)


def scene_rows(result: Result) -> list[tuple[str, str, str]]:
    """Write the rows of a table: measure, value with its 95% interval, and of how many."""
    rows = [
        (f"{part.replace('_', ' ')}, {name}", percentage(rate), f"{rate['of']:,}")
        for part in ("transfer_accuracy", "chunk_to_category")
        for name, rate in result[part].items()
    ]
    invariances, swaps = result["chunk_invariance"].items(), f"{result['pairs']:,}"
    return [*rows, *((f"chunk invariance, {name}", f"{value:.3f}", swaps) for name, value in invariances)]


def verdicts(swaps: Swaps, made: Swapped, objects: QuadrantObjects, judge: Judge) -> dict[str, Answers]:
    """Compare the judge's answers to each question with what they should be, over the quadrants it is asked of.

    - "transferred": the swapped quadrant shows I_obj's object.
    - "kept": the other quadrants show I_ref's objects.
    - "replaced": the swapped quadrant still shows I_ref's object, of another category than I_obj's; should be rare.
    - "reconstructed": Dec(Enc(I_ref)) shows I_ref's objects.
    """
    swapped = swaps.mask
    of_ref, of_obj = objects.labels[swaps.ref], objects.labels[swaps.obj]
    wanted = np.where(swapped, of_obj, of_ref)
    couples = per_quadrant(swaps.couple)
    found: dict[str, Answers] = {}

    def note(name: str, right: NDArray[np.bool_], asked: NDArray[np.bool_]) -> None:
        found[name] = Answers(right[asked], couples[asked])

    for name, images in (("I_mix", made.I_mix), ("pasted", made.I_paste)):
        seen = judge.sees(to_uint8_nhwc(images))
        note(f"{name}: transferred", seen == wanted, swapped & (wanted != NONE))
        note(f"{name}: kept", seen == wanted, ~swapped & (wanted != NONE))
        gone = swapped & (of_ref != NONE) & (of_obj != NONE) & (of_ref != of_obj)
        note(f"{name}: replaced", seen == of_ref, gone)
    note("I_hat: reconstructed", judge.sees(to_uint8_nhwc(made.I_hat)) == of_ref, of_ref != NONE)
    return found


def changes(swaps: Swaps, made: Swapped, mean_code: NDArray[np.floating]) -> dict[str, float]:
    """Sum up over a batch what `invariance` takes the ratios of; `mean_code` is (chunks, chunk) of real images."""
    swapped = swaps.mask
    swapped_chunks = replaced_chunks(torch.from_numpy(swapped), made.f_mix.shape[1]).numpy()
    f_mix, f_mix_hat = (f.double().cpu().numpy() for f in (made.f_mix, made.f_mix_hat))
    drift, spread = (((f_mix - other) ** 2).sum(2) for other in (f_mix_hat, mean_code))
    pixels = (made.I_mix - made.I_hat).abs().double().mean(1).cpu().numpy()
    half = pixels.shape[-1] // 2
    change = pixels.reshape(-1, 2, half, 2, half).mean((2, 4)).reshape(-1, 4)
    sums: dict[str, float] = {}
    for where, quadrants, chunks in (("kept", ~swapped, ~swapped_chunks), ("swapped", swapped, swapped_chunks)):
        sums |= {f"drift {where}": drift[chunks].sum(), f"spread {where}": spread[chunks].sum()}
        sums |= {f"change {where}": change[quadrants].sum(), f"count {where}": quadrants.sum()}
    return {name: float(value) for name, value in sums.items()}


def invariance(sums: dict[str, float]) -> dict[str, float]:
    """Compute the measures from sums over all swaps.

    >>> sums = {"drift kept": 1, "spread kept": 10, "drift swapped": 1, "spread swapped": 4}
    >>> sums |= {"change kept": 3, "count kept": 3, "change swapped": 4, "count swapped": 1}
    >>> invariance(sums)["drift of kept chunks"], invariance(sums)["leak"]
    (0.1, 0.25)
    """
    inside, outside = (sums[f"change {where}"] / sums[f"count {where}"] for where in ("swapped", "kept"))
    return {
        "drift of kept chunks": sums["drift kept"] / sums["spread kept"],
        "drift of the swapped chunk": sums["drift swapped"] / sums["spread swapped"],
        "change inside the quadrant": inside,
        "change outside the quadrant": outside,
        "leak": outside / inside,
    }


def chunk_to_category(
    codes: NDArray[np.floating], objects: QuadrantObjects, photographs: NDArray[np.int64], split: Split
) -> dict[str, Result]:
    """Measure the accuracy on the test half, from a quadrant's own chunk and from that of the quadrant opposite.

    Takes codes (N, chunks, chunk) of real images, where a quadrant of several chunks is read by their mean, and the
    photograph (N,) of each image.
    """
    train, test = (objects.labels[rows] != NONE for rows in (split.train, split.test))
    y_train, y_test = objects.labels[split.train][train], objects.labels[split.test][test]
    found = {}
    of_chunk = tile_of_chunk(codes.shape[1], 4).numpy()
    by_quadrant = np.stack([codes[:, of_chunk == q].mean(1) for q in range(4)], axis=1)
    for name, chunks in (("own chunk", by_quadrant), ("opposite chunk", by_quadrant[:, ::-1])):
        classifier = fit_logistic(chunks[split.train][train], y_train, len(objects.classes))
        right = classifier.predict(chunks[split.test][test]) == y_test
        found[name] = proportion(Answers(right, per_quadrant(photographs[split.test])[test]))
    return found | {"majority": majority(objects.labels, photographs, split)}
