"""Ablation of the losses (Table 4.5)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorbms_fast.config import EvaluationConfig, TrainConfig
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.generation import generation_results, score_key
from lorbms_fast.evaluation.results import Result, mean_and_sd, percentage, read_result, spread


@dataclass(frozen=True)
class Variant:
    """A row of Table 4.5."""

    title: str
    without: str | None
    """Field of `LossConfig` that is set to zero."""
    thesis: tuple[float, float, float]
    """STL-10 accuracy in percent after ten epochs; FID and IS, averages over the last three of them."""


EPOCHS = 3
"""Number of last epochs over which Table 4.5 averages FID and IS."""
BEYOND = ("PSNR of I_hat", "transferred", "kept", "not replaced")
"""Columns that the thesis's table has not: see `measure_retrieval`."""
PAIRS = 400
"""Number of swaps for them."""
VARIANTS = {
    "full": Variant("full", None, (34.6, 188.3, 5.6)),
    "no-cls": Variant("without L_cls", "cls", (33.8, 183.5, 6.0)),
    "no-rec": Variant("without L_rec", "rec", (26.3, 261.9, 3.2)),
    "no-adv": Variant("without L_adv", "adv", (35.7, 222.7, 4.2)),
}


def variant_config(base: TrainConfig, name: str, evaluation: EvaluationConfig | None = None) -> TrainConfig:
    """Leave one part of L_G out of a run's settings, none of the training.

    Raises UserError without such a variant, or where the settings leave that part out already.
    """
    if name not in VARIANTS:
        raise UserError(f"there is no variant '{name}': choose of {', '.join(VARIANTS)}")
    without = VARIANTS[name].without
    if without is not None and getattr(base.loss, without) == 0:
        raise UserError(
            f"these settings leave L_{without} out already, so that '{name}' would be 'full' again: "
            f"give it a weight by --config, or leave '{name}' out of --variants"
        )
    left_out: dict[str, Any] = {} if without is None else {without: 0.0}
    return replace(base, loss=replace(base.loss, **left_out), evaluation=evaluation or base.evaluation)


def ablation_rows(folder: Path) -> list[list[str]]:
    """Write Table 4.5 of the runs in a folder: title, here and thesis of STL-10, Frechet distance and score, `BEYOND`.

    Distance and score are averages over the last three epochs that were measured, as the thesis's are.
    """
    rows = []
    for name, variant in VARIANTS.items():
        results = folder / name / "evaluation"
        accuracy = read_result(results / "linear" / "encoder.json")
        made = generation_results(folder / name)
        if accuracy is None and not made:
            continue
        last = last_epochs(made)
        key = score_key(last[-1]) if last else None
        rows.append(
            [
                variant.title,
                spread(accuracy["accuracy"], accuracy["sd"]) if accuracy else "not measured",
                f"{variant.thesis[0]}",
                _averaged(last, "frechet", 1) if last else "not measured",
                f"{variant.thesis[1]}",
                _averaged(last, key, 2) if key else "needs Inception",
                f"{variant.thesis[2]}",
                *_beyond(results / "retrieval"),
            ]
        )
    return rows


def last_epochs(results: Sequence[Result]) -> Sequence[Result]:
    """Choose the results of the last three epochs, of those that were measured as the very last one was."""
    if not results:
        return []
    like = ("store", "distance", "features")
    return [result for result in results if all(result[name] == results[-1][name] for name in like)][-EPOCHS:]


def _beyond(folder: Path) -> list[str]:
    """Write what the last measurement in a folder says of reconstructions and transfers."""
    found = [read_result(path) for path in sorted(folder.glob("*.json"))[-1:]]
    if not found or found[0] is None:
        return ["not measured"] * len(BEYOND)
    return [f"{found[0]['psnr']['I_hat']:.1f} dB", *(percentage(found[0]["retrieval"][name]) for name in BEYOND[1:])]


def _averaged(results: Sequence[Result], key: str, digits: int) -> str:
    mean, _ = mean_and_sd([result[key][0] for result in results])
    return f"{mean:.{digits}f} (mean of {len(results)})" if len(results) > 1 else f"{mean:.{digits}f} (one epoch)"
