"""The settings that are searched, and their ranges."""

from dataclasses import asdict
from typing import Annotated

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from lorbms_fast.config import Rate, TrainConfig
from lorbms_fast.models.variants import changed


def _in_order(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("name the lowest value first")
    return ends


Range = Annotated[tuple[Rate, Rate], AfterValidator(_in_order)]


@dataclass(frozen=True)
class Space:
    """Lowest and highest value of each setting, drawn evenly on a logarithmic scale; equal ones are not searched."""

    generator_lr: Range = (5e-5, 1e-3)
    """Learning rate of encoder and decoder."""
    discriminator_lr: Range = (5e-5, 1e-3)
    """Learning rate of the discriminator."""
    classifier_lr: Range = (5e-5, 1e-3)
    """Initial learning rate of the classifier."""
    adv: Range = (0.01, 0.2)
    """Weight of L_adv in L_G."""
    cls: Range = (0.005, 0.2)
    """Weight of L_cls in L_G; the ablation suggests a smaller one than the thesis's 0.044."""


def ranges(space: Space) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each setting that is searched."""
    return {name: (low, high) for name, (low, high) in asdict(space).items() if low < high}


def chosen(config: TrainConfig, values: dict[str, float]) -> TrainConfig:
    """Replace some of the space's settings in a config."""
    for name, value in values.items():
        config = changed(**{"optim" if hasattr(config.optim, name) else "loss": {name: value}})(config)
    return config
