"""Every variant of `lorbms_fast.variants`: its networks, its settings, and rules for tensors that only it has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lorbms_fast.config import ModelConfig, TrainConfig
from lorbms_fast.errors import UserError
from lorbms_fast.models.initial_values import HE, Rule
from lorbms_fast.models.variants import (
    attention,
    broadcast_decoder,
    coordconv_discriminator,
    global_local_discriminator,
    hu,
    rf46_encoder,
    squeezenet_classifier,
    tile_encoder,
    transposed_decoder,
)
from lorbms_fast.models.variants.joint_classifier import SixImageClassifier, ThreeImageClassifier
from lorbms_fast.reference.classifier import PAIR

Kind = Literal["Encoder", "Decoder", "Discriminator", "Classifier"]


@dataclass(frozen=True)
class Variant:
    """Differences of a system from the thesis's."""

    networks: Mapping[Kind, Any] = field(default_factory=dict)
    """Networks of its own; a run of the variant uses all of them."""
    settings: Callable[[TrainConfig], TrainConfig] = lambda config: config
    """Further settings, from those of a run without the variant."""
    initial_values: Mapping[str, Rule] = field(default_factory=dict)
    """Rules for the tensors that the thesis's networks do not have, by patterns of their names."""


def changed(**groups: Mapping[str, Any]) -> Callable[[TrainConfig], TrainConfig]:
    """Make the function that sets some settings of a group, as `model` or `loss`, and leaves the others."""
    return lambda config: replace(
        config, **{group: replace(getattr(config, group), **values) for group, values in groups.items()}
    )


_VARIANTS: dict[str, Variant] = {
    "thesis": Variant(),
    # A quarter for each lambda_j, one rank for all quadrants, a fresh batch for each update, u's own schedule.
    "author": Variant(
        settings=changed(
            loss={"lambdas": (0.25, 0.25, 0.25, 0.25)},
            mixing={"candidates": "shared-rank"},
            optim={"sn_power_iterations": (9, 2), "sn_gradient": "through", "batches": "fresh"},
        )
    ),
    "hinge": Variant(settings=changed(loss={"gan": "hinge"})),  # Zhang et al., 2019
    "coordconv-discriminator": Variant(
        {"Discriminator": coordconv_discriminator.Discriminator}, initial_values=attention.INITIAL_VALUES
    ),
    "attention-discriminator": Variant(
        {"Discriminator": attention.Discriminator}, initial_values=attention.INITIAL_VALUES
    ),
    "attention-decoder": Variant({"Decoder": attention.Decoder}, initial_values=attention.INITIAL_VALUES),
    # The decoder and the discriminator of the two before.
    "attention": Variant(
        settings=changed(model={"decoder": "attention-decoder", "discriminator": "attention-discriminator"})
    ),
    "global-local-discriminator": Variant(
        {"Discriminator": global_local_discriminator.Discriminator},
        initial_values=global_local_discriminator.INITIAL_VALUES,
    ),
    "broadcast-decoder": Variant({"Decoder": broadcast_decoder.Decoder}),
    "transposed-decoder": Variant({"Decoder": transposed_decoder.Decoder}),
    "rf46-encoder": Variant({"Encoder": rf46_encoder.Encoder}),
    "squeezenet-classifier": Variant(
        {"Classifier": squeezenet_classifier.Classifier}, initial_values=squeezenet_classifier.INITIAL_VALUES
    ),
    "six-image-classifier": Variant({"Classifier": SixImageClassifier}),
    # Tiles of 32 px; halves of the batch are mixed with each other.
    "nine-tiles": Variant(
        {"Encoder": tile_encoder.Encoder, "Classifier": ThreeImageClassifier},
        changed(model={"image_size": 96, "tiles": 9}, mixing={"candidates": "halves", "tau": None}),
    ),
    # Candidates from inside the batch; a threshold meant for the neighbours' features is dropped.
    "batch-tiles": Variant(settings=changed(mixing={"candidates": "batch", "tau": None})),
    # A code of 3 x 3 chunks, the middle ones shared out among the four quadrants.
    "size-96": Variant(settings=changed(model={"image_size": 96})),
    "size-128": Variant(settings=changed(model={"image_size": 128})),  # 4 x 4 chunks, four a quadrant
    "hu": Variant(
        {"Encoder": hu.Encoder, "Decoder": hu.Decoder, "Classifier": ThreeImageClassifier},
        hu.settings,
        hu.INITIAL_VALUES,
    ),
}


def with_variant(config: TrainConfig, name: str) -> TrainConfig:
    """Turn the settings of a run into those of a variant; UserError where there is none of that name.

    >>> with_variant(TrainConfig(), "attention-decoder").model.decoder
    'attention-decoder'
    """
    variant = _variant(name)
    parts: dict[str, Any] = {kind.lower(): name for kind in variant.networks}
    return variant.settings(replace(config, model=replace(config.model, **parts)))


def network(kind: Kind, name: str) -> Any:
    """Find a variant's class for one of the four networks; UserError where it has none of this kind."""
    found = _variant(name).networks.get(kind)
    if found is None:
        having = [other for other, variant in _VARIANTS.items() if kind in variant.networks]
        raise UserError(
            f"the variant '{name}' has no {kind.lower()} of its own: name thesis, {', '.join(sorted(having))}"
        )
    return found


def images_at_once(classifier: str) -> int | None:
    """Count the images that a variant's classifier sees in one run; None if it sees pairs, one for each candidate."""
    found = _variant(classifier).networks.get("Classifier")
    return None if found is None or found.images == PAIR else found.images


def initial_values(config: ModelConfig) -> dict[str, Rule]:
    """Collect the rules that come before the thesis's: those of variants, and behind them He's if these are asked."""
    rules: dict[str, Rule] = {}
    for name in (config.encoder, config.decoder, config.discriminator, config.classifier):
        rules |= _variant(name).initial_values
    return rules | HE if config.initial_values == "he" else rules


def _variant(name: str) -> Variant:
    if name not in _VARIANTS:
        raise UserError(f"there is no variant '{name}': choose one of {', '.join(_VARIANTS)}")
    return _VARIANTS[name]
