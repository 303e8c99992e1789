"""Lengths and sizes of the linear probes and of what they need; the defaults are the thesis's where it gives one."""

from dataclasses import field
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from lorbms_fast.config import Count
from lorbms_fast.evaluation.alexnet import HIDDEN, WIDTHS
from lorbms_fast.evaluation.probe import ProbeConfig


@dataclass(frozen=True)
class LinearConfig:
    """The protocol of Table 4.3."""

    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """The linear classifier."""
    views: Count | None = None
    """Random views of each training picture, taken in turn; by default a new one each epoch, as in the thesis. Fewer
    take less time and disk."""
    side: Annotated[int, Field(ge=64, multiple_of=32)] = 96
    """Side of the pictures in pixels."""
    finetune_batch: Count = 100
    """Batch size where the backbone is trained too; the thesis does not say."""
    stl10_epochs: Count = 150
    """Passes over STL-10's training set in the pretrainings on it."""
    stl10_batch: Count = 100
    """Batch size there; the thesis does not say."""
    pascal_iterations: Count = 80_000
    """Steps of the pretraining on PASCAL."""
    pascal_batch: Count = 16
    """Batch size there; the thesis does not say."""
    alexnet_epochs: Count = 60
    """Passes of AlexNet over ImageNet or over clustered images."""
    alexnet_batch: Count = 128
    """Batch size there."""
    large_side: Annotated[int, Field(ge=64, multiple_of=32)] = 224
    """Side of the pictures in the pretrainings on PASCAL, ImageNet and clusters."""
    clusters: Count = 2_000
    """Number of clusters in knowledge transfer."""
    alexnet_widths: tuple[Count, Count, Count, Count, Count] = WIDTHS
    """Maps of AlexNet's convolutions."""
    alexnet_hidden: Count = HIDDEN
    """Units of its hidden layers."""
