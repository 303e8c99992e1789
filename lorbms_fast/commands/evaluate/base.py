"""The training settings that ablation and calibration vary."""

from pathlib import Path

from lorbms_fast.config import PRESETS, TrainConfig, read_config
from lorbms_fast.errors import UserError


def base_config(preset: str, config: Path | None) -> TrainConfig:
    """A preset, with what a file of settings replaces.

    Raises:
        UserError: there is no such preset, or the file is amiss.
    """
    if preset not in PRESETS:
        raise UserError(f"there is no preset '{preset}': choose one of {', '.join(PRESETS)}")
    return PRESETS[preset] if config is None else read_config(config, PRESETS[preset])
