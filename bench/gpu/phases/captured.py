"""The iteration as CUDA graphs, against the same iteration operation after operation, from the same state each time.

Some of torch's kernels add in an order that changes. So the iteration without graphs is also compared with itself, and
what it differs by is what a graph may differ by, a few times.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.gpu.findings import Findings
from bench.gpu.setting import Setting
from lorbms_fast.config import Precision
from lorbms_fast.measurement.step import Captured, captured

REPLAYS = 20
PREPARING = 1
"""Iterations of a size, replays already, before the first that is compared."""
TIMES = 4
ROUNDINGS = {"float32": 1e-5, "tf32": 1e-3, "bfloat16": 1e-2, "float16": 2e-3}
"""Relative differences that are allowed where the iteration without graphs happens to repeat itself."""


def run(findings: Findings, setting: Setting) -> None:
    names: tuple[Precision, ...] = ("float32",) if setting.rehearse else ("bfloat16", "float32", "float16")
    for name in names:
        compare(name, findings, setting)


def compare(name: Precision, findings: Findings, setting: Setting) -> None:
    """Write a row for every number of candidates."""
    n, replays = setting.batch, 1 if setting.rehearse else REPLAYS
    sizes = sorted({-(-n * quarters // 4) for quarters in (6, 8, 10, 12)})
    plain, again, other = (captured(setting.model, n, name, setting.device, None, sizes) for _ in range(3))
    played = setting.recording(other)
    found = {size: Differences() for size in sizes}
    for number in range(len(sizes) * (PREPARING + replays)):
        if number:
            _take_over(other, plain)
            _take_over(other, again)
        numbers = range(number, number + 1)
        expected, repeated, seen = (one.iteration(number, numbers).stacked().clone() for one in (plain, again, played))
        at = found[sizes[number % len(sizes)]]
        if number >= PREPARING * len(sizes):
            at.replays += 1
            at.note(_apart(seen, expected), _apart(repeated, expected))
            of_moments = [_moments(one) for one in (played, plain, again)]
            at.note(_apart(of_moments[0], of_moments[1]), _apart(of_moments[2], of_moments[1]))
    for size, differences in found.items():
        wrong = differences.wrong(ROUNDINGS[name])
        if other.iteration.graphs != len(sizes):
            wrong = f"{other.iteration.graphs} graphs for {len(sizes)} sizes: see log.txt"
        findings.row(
            "Captured against not captured", wrong, arithmetic=name, candidates=size, replays=differences.replays,
            **{"largest relative difference": differences.found, "of two uncaptured": differences.own},
        )  # fmt: skip
    moved = int(other.iteration.number.item())
    expected_number = len(sizes) * (PREPARING + replays)
    findings.note(f"{name}: the device counted {moved} iterations of {expected_number}", wrong=moved != expected_number)


@dataclass
class Differences:
    """The largest that were seen."""

    replays: int = 0
    found: float = 0.0
    own: float = 0.0
    flawed: bool = False

    def note(self, found: float, own: float) -> None:
        self.flawed |= found != found
        self.found, self.own = max(self.found, found), max(self.own, own)

    def wrong(self, rounding: float) -> str | None:
        if self.flawed:
            return "not a number"
        if self.found > TIMES * self.own + rounding:
            return "they differ"
        return None if self.replays else "no replay"


@torch.no_grad()
def _take_over(source: Captured, target: Captured) -> None:
    """Let the target be where the source is; no memory is replaced, which a graph may read."""
    for new, old in zip(source.state(), target.state(), strict=True):
        old.copy_(new)


def _moments(one: Captured) -> Tensor:
    """First moments of all parameters, by which the update's gradients show; divided by none of their own sizes."""
    states = [state for optimizer in vars(one.optimizers).values() for state in optimizer.state.values()]
    return torch.cat([state["exp_avg"].flatten() for state in states])


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())
