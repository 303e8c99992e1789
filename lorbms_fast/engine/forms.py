"""The training iteration in each form it has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from types import ModuleType

from torch import Tensor

from lorbms_fast.config import Impl, LossConfig, OptimConfig
from lorbms_fast.dataloader.batches import Batch
from lorbms_fast.engine import iteration as fast
from lorbms_fast.engine.optimizers import Optimizers
from lorbms_fast.engine.report import Report
from lorbms_fast.engine.scenes import Scenes
from lorbms_fast.losses import GeneratorLosses
from lorbms_fast.models import Networks
from lorbms_fast.reference import iteration as reference


@dataclass(frozen=True)
class Form:
    """One way to compute an iteration; the functions are documented where they are written."""

    scenes: Callable[[Networks, Batch], Scenes]
    generator_losses: Callable[[Networks, Batch, LossConfig], tuple[GeneratorLosses, Scenes]]
    classifier_logits: Callable[[Networks, Tensor, Tensor], Tensor]
    iterate: Callable[[Networks, Optimizers, Sequence[Batch], LossConfig], Report]
    advance_u: Callable[[Networks, OptimConfig], None]


def _form(module: ModuleType) -> Form:
    return Form(**{field.name: getattr(module, field.name) for field in fields(Form)})


FORMS: dict[Impl, Form] = {"reference": _form(reference), "torch": _form(fast)}
