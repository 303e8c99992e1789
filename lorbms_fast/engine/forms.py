"""The training iteration in each form it has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from types import ModuleType

from torch import Tensor

from lorbms_fast.config import Impl, LossConfig, ModelConfig, OptimConfig
from lorbms_fast.engine import iteration as fast
from lorbms_fast.engine import tiled
from lorbms_fast.engine.optimizers import Optimizers
from lorbms_fast.models.variants import images_at_once
from lorbms_fast.reference import iteration as reference
from lorbms_fast.types import Batch, GeneratorLosses, Networks, Scenes, StepMetrics


@dataclass(frozen=True)
class Form:
    """One way to compute an iteration; the functions are documented where they are written."""

    scenes: Callable[[Networks, Batch], Scenes]
    generator_losses: Callable[[Networks, Batch, LossConfig], tuple[GeneratorLosses, Scenes]]
    classifier_logits: Callable[[Networks, Tensor, Tensor], Tensor]
    iterate: Callable[[Networks, Optimizers, Sequence[Batch], LossConfig], StepMetrics]
    advance_u: Callable[[Networks, OptimConfig], None]


def _form(module: ModuleType) -> Form:
    return Form(**{field.name: getattr(module, field.name) for field in fields(Form)})


FORMS: dict[Impl, Form] = {"reference": _form(reference), "torch": _form(fast)}


def form_of(model: ModelConfig, impl: Impl) -> Form:
    """How to train a model: by `FORMS` where it is mixed and classified as the thesis's, else by the general form."""
    return FORMS[impl] if _as_in_the_thesis(model) else _general(impl)


def _as_in_the_thesis(model: ModelConfig) -> bool:
    """Whether every quadrant is one chunk and the classifier sees candidates one by one."""
    return model.tiles == 4 and model.image_size == 64 and images_at_once(model.classifier) is None


def _general(impl: Impl) -> Form:
    """The general form; classifiers of pairs run as they do in the form of `impl`."""
    pairs = FORMS[impl].classifier_logits
    return replace(
        FORMS["reference"],
        scenes=tiled.scenes,
        generator_losses=partial(tiled.generator_losses, pairs=pairs),
        classifier_logits=pairs,
        iterate=partial(tiled.iterate, pairs=pairs),
    )
