"""What all phases are told: where to compute, how large, until when, and where to write."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lorbms_fast.config import ModelConfig, Precision

if TYPE_CHECKING:
    from lorbms_fast.measurement.step import Captured

SMALL = ModelConfig(
    stem=3, growth=2, layers=(1, 1, 1, 1, 1), chunk=4,
    discriminator_width=2, classifier_widths=(4, 4, 4, 4, 4), classifier_hidden=8,
)  # fmt: skip
REPLAYS = 15


@dataclass(frozen=True)
class Setting:
    """Setting of one phase."""

    out: Path
    """Folder for what is found."""
    rehearse: bool
    """On a CPU: everything tiny, the interpreter in the place of kernels and a tape in that of graphs."""
    until: float
    """`time.monotonic()` at which the phase is ended."""

    @property
    def findings(self) -> Path:
        return self.out / "findings.jsonl"

    @property
    def page(self) -> Path:
        return self.out / "GPU.md"

    @property
    def device(self) -> torch.device:
        return torch.device("cpu") if self.rehearse else torch.device("cuda", torch.cuda.current_device())

    @property
    def model(self) -> ModelConfig:
        return SMALL if self.rehearse else ModelConfig()

    @property
    def batches(self) -> tuple[int, ...]:
        """Numbers of reference images at which operations are checked."""
        return (2,) if self.rehearse else (12, 128)

    @property
    def side(self) -> int:
        """Side of the images at which operations are checked."""
        return 4 if self.rehearse else self.model.image_size

    @property
    def batch(self) -> int:
        return 1 if self.rehearse else 12

    @property
    def precisions(self) -> tuple[Precision, ...]:
        return ("float32", "bfloat16") if self.rehearse else ("float32", "tf32", "bfloat16", "float16")

    def recording(self, one: "Captured") -> "Captured":
        """Have an iteration captured when it is next called: on a CPU, on a tape."""
        from bench.gpu.tape import Tape  # here, not above: what cannot be imported spoils a phase, and not all
        from lorbms_fast.engine.cuda_graph import CudaGraphs

        one.iteration.recorder = Tape(one.state) if self.rehearse else CudaGraphs(self.device)
        return one

    def milliseconds(self, work: Callable[[], object]) -> float:
        """Median time of work on fixed memory in a graph; in a rehearsal a tape refuses what no graph can hold."""
        from bench.gpu.tape import Tape
        from lorbms_fast.engine.first_use import judging

        if not self.rehearse:
            return judging.milliseconds(work, self.device, REPLAYS)
        began = time.monotonic()
        Tape(list).record(work)
        return 1e3 * (time.monotonic() - began)

    def kernels(self) -> AbstractContextManager[None]:
        """Inside the context kernels run here: in a rehearsal, in Triton's interpreter."""
        if not self.rehearse:
            return nullcontext()
        from tests.kernels.interpreter import interpreted

        return interpreted(seed=0)

    def left(self) -> float:
        """Seconds until the phase is ended."""
        return self.until - time.monotonic()
