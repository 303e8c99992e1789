"""The implementations of an iteration, and the choice of the one that a system needs."""

from lorbms_fast.config import Impl, ModelConfig
from lorbms_fast.engine.fast import Fast
from lorbms_fast.engine.iteration import IterationImpl
from lorbms_fast.engine.tiled import JointlyClassified, Tiled
from lorbms_fast.models.variants import images_at_once
from lorbms_fast.reference.iteration import Reference

IMPLS: dict[Impl, IterationImpl] = {"reference": Reference(), "fast": Fast()}
"""For the thesis's way of mixing and classifying."""


def implementation(model: ModelConfig, impl: Impl) -> IterationImpl:
    """Find the implementation that computes a model's iteration.

    It is the thesis's where every quadrant is one chunk and the classifier sees candidates one by one; else it goes
    tile by tile.
    """
    if images_at_once(model.classifier) is not None:
        return JointlyClassified(IMPLS[impl])
    return IMPLS[impl] if model.chunks == model.tiles else Tiled(IMPLS[impl])
