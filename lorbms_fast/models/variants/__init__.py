"""What each variant of `lorbms_fast.variants` is made of: a module each, found by its name."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

from lorbms_fast.config import ModelConfig, TrainConfig
from lorbms_fast.errors import UserError
from lorbms_fast.models.initial_values import Rule
from lorbms_fast.variants import VARIANTS

Kind = Literal["Encoder", "Decoder", "Discriminator", "Classifier"]


def with_variant(config: TrainConfig, name: str) -> TrainConfig:
    """The settings of a variant, where a run would have `config` without it.

    Raises:
        UserError: there is no such variant.
    """
    settings: Callable[[TrainConfig], TrainConfig] = _module(name).settings
    return settings(config)


def network(kind: Kind, name: str) -> Any:
    """A variant's class for one of the four networks.

    Raises:
        UserError: the variant has no network of this kind.
    """
    module = _module(name)
    if not hasattr(module, kind):
        having = [other for other in VARIANTS if hasattr(_module(other), kind)]
        raise UserError(
            f"the variant '{name}' has no {kind.lower()} of its own: name thesis, {', '.join(sorted(having))}"
        )
    return getattr(module, kind)


def images_at_once(classifier: str) -> int | None:
    """How many images a variant's classifier sees in one run; None if it sees the mixed one with each candidate."""
    return getattr(getattr(_module(classifier), "Classifier", None), "images", None)


def initial_values(config: ModelConfig) -> dict[str, Rule]:
    """Rules for the tensors that only variants have, by patterns of their names."""
    rules: dict[str, Rule] = {}
    for name in (config.encoder, config.decoder, config.discriminator, config.classifier):
        rules |= getattr(_module(name), "INITIAL_VALUES", {})
    return rules


def _module(name: str) -> ModuleType:
    if name not in VARIANTS:
        raise UserError(f"there is no variant '{name}': choose one of {', '.join(VARIANTS)}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
