"""Table 4.5: what each loss is for."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorbms_fast.config import TrainConfig
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.formatting import interval, spread
from lorbms_fast.evaluation.generation import generation_results
from lorbms_fast.evaluation.results import read_result


@dataclass(frozen=True)
class Variant:
    """A row of Table 4.5."""

    title: str
    without: str | None
    """Field of `LossConfig` that is set to zero."""
    thesis: tuple[float, float, float]
    """STL-10 accuracy in percent, FID, IS after ten epochs."""


VARIANTS = {
    "full": Variant("full", None, (34.6, 188.3, 5.6)),
    "no-cls": Variant("without L_cls", "cls", (33.8, 183.5, 6.0)),
    "no-rec": Variant("without L_rec", "rec", (26.3, 261.9, 3.2)),
    "no-adv": Variant("without L_adv", "adv", (35.7, 222.7, 4.2)),
}


def variant_config(base: TrainConfig, name: str) -> TrainConfig:
    """The base run with one part of L_G left out; classifier and discriminator are still trained.

    Raises:
        UserError: there is no such variant.
    """
    if name not in VARIANTS:
        raise UserError(f"there is no variant '{name}': choose of {', '.join(VARIANTS)}")
    without = VARIANTS[name].without
    left_out: dict[str, Any] = {} if without is None else {without: 0.0}
    return replace(base, loss=replace(base.loss, **left_out))


def ablation_rows(folder: Path) -> list[list[str]]:
    """Table 4.5 from the variants' runs in a folder: title, then here and thesis of STL-10, Frechet distance and IS."""
    rows = []
    for name, variant in VARIANTS.items():
        accuracy = read_result(folder / name / "evaluation" / "linear" / "encoder.json")
        made = generation_results(folder / name)
        if accuracy is None and not made:
            continue
        last = made[-1] if made else {}
        rows.append(
            [
                variant.title,
                spread(accuracy["accuracy"], accuracy["sd"]) if accuracy else "not measured",
                f"{variant.thesis[0]}",
                interval(last["frechet"]) if last else "not measured",
                f"{variant.thesis[1]}",
                interval(last["is"], 2) if "is" in last else "needs Inception",
                f"{variant.thesis[2]}",
            ]
        )
    return rows
