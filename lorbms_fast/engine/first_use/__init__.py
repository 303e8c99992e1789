"""First use of the kernels on a machine: each operation of a run is compiled, checked, timed, and given a form.

Nothing of this happens on a CPU. What was found is kept (`verdicts`), so that the next run only looks it up.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from lorbms_fast.config import Kernels
from lorbms_fast.engine.distributed import ALONE, World
from lorbms_fast.engine.first_use.calls import Call, recorded
from lorbms_fast.engine.first_use.judging import Verdict
from lorbms_fast.engine.first_use.triton_cache import use_writable_cache
from lorbms_fast.engine.first_use.verdicts import load, machine, place, save
from lorbms_fast.engine.first_use.workers import Judge, judged_apart, judged_here
from lorbms_fast.errors import UserError
from lorbms_fast.kernels import Impl
from lorbms_fast.kernels._common import dispatch
from lorbms_fast.kernels._common.operation import install
from lorbms_fast.progress import tqdm

Tried = Literal["auto", "triton"]
IN_FORCE: dict[Kernels, Impl] = {"auto": "auto", "triton": "triton", "torch": "fused"}
"""Forms that `--kernels` puts in force; with `torch`, nothing is tried."""


def tried(kernels: Kernels, device: torch.device, impl: str = "fast") -> Tried | None:
    """Say which forms are tried, if any; UserError where `triton` asks for kernels of ours and they cannot run."""
    run = dispatch.kernels_run_on(device) and impl == "fast"
    if kernels == "triton" and not run:
        lacking = f"Triton and a GPU since Ampere, not {device}" if impl == "fast" else f"--impl fast, not {impl}"
        raise UserError(f"--kernels triton needs {lacking}: use auto")
    return kernels if run and kernels != "torch" else None


WIDTH = 160
"""Columns of a table that is written to no terminal: the longest names and forms are whole in it."""


@dataclass(frozen=True)
class Row:
    """An operation at a shape and the form it was given."""

    calls: list[Call]
    verdict: Verdict
    form: str

    @property
    def cells(self) -> dict[str, Any]:
        """Cells of the printed table, by column."""
        call, found, batches = self.calls[-1], self.verdict, [each.batch for each in self.calls]
        return {
            "operation": call.operation.__name__,
            "shape": "x".join(map(str, call.specs[0].shape[1:])),
            "batch": "-".join(map(str, sorted({min(batches), max(batches)}))),
            "arithmetic": call.arithmetic,
            "form": self.form,
            "error": found.errors.get(self.form),
            "definition": found.own,
            "ms": found.milliseconds.get(self.form),
            "times torch": found.times_fused(self.form),
        }

    def messages(self) -> list[str]:
        """Say of each form that failed which, why, what runs instead and what that costs."""
        return [self._message(form, why) for form, why in self.verdict.failures.items()]

    def _message(self, form: str, why: str) -> str:
        call, took = self.calls[-1], self.verdict.milliseconds
        told = f"{call.label}, {call.arithmetic}: '{form}' {why}"
        if form == self.form:
            return f"{told}: it runs all the same, as no other form is right"
        if {form, self.form} <= took.keys():
            cost = f"{took[self.form] / took[form]:.2f} times its time"
        else:
            cost = "what that costs could not be measured"
        instead = "the fused torch form" if self.form == "fused" else f"'{self.form}'"
        return f"{told}: {instead} runs instead, {cost}"


@dataclass(frozen=True)
class Found:
    """Findings about a run's operations."""

    machine: dict[str, str]
    rows: list[Row]
    path: Path
    tried: int
    """Number of operations that were tried now."""

    def tell(self, whole: bool = False) -> None:
        """Print what failed, and the table where something was tried now or `whole` is set."""
        for row in self.rows:
            for message in row.messages():
                tqdm.write(message)
        if passing := sum(row.verdict.passing for row in self.rows):
            tqdm.write(f"{passing} of these had to do with the machine as it is now: the next run tries them again")
        if not self.tried and not whole:
            tqdm.write(f"{len(self.rows)} operations run as {self.path} says; --retune tries them again")
            return
        from rich import box  # where nothing is told (bench.gpu), it need not be installed
        from rich.console import Console
        from rich.table import Table

        of = self.machine
        title = f"{of['gpu']}, torch {of['torch']}, Triton {of['triton']}, lorbms-fast {of['lorbms-fast']}"
        table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
        for name in self.rows[0].cells if self.rows else ():
            table.add_column(name, justify="left" if name in ("operation", "form") else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*("" if value is None else _short(value) for value in row.cells.values()))
        Console(markup=False, width=None if sys.stdout.isatty() else WIDTH).print(table)

    def facts(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {"machine": self.machine, "operations": [row.cells | row.verdict.__dict__ for row in self.rows]}


def _short(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}" if 0.1 <= value < 1e3 else f"{value:.1e}"


def choose_forms(
    works: Iterable[Callable[[], object]], device: torch.device, kernels: Tried = "auto", retune: bool = False,
    world: World = ALONE, judging: Judge | None = None, path: Path | None = None,
) -> Found:  # fmt: skip
    """Give each operation that some works make a form: the fastest that is right, tried now or before.

    Every process of the `world` does the works, in the fused form; the first one tries, the others take its verdicts.
    `kernels` is `triton` to take no other form, `retune` tries again what was tried before. Calls are judged in
    processes of their own, verdicts kept in the user's cache folder, unless `judging` and `path` say otherwise. Raises
    UserError if `kernels` is `triton`, and none of an operation's kernels is right.
    """
    families, of = recorded(works, device), machine(device)
    path = path or place(of)
    judging = judging or (judged_apart if device.type == "cuda" else judged_here)

    if dispatch.HAS_TRITON:
        use_writable_cache(world.first)
    known: dict[str, Verdict] = world.shared(lambda: {} if retune else load(path, of))
    missing = {str(key): calls for key, calls in families.items() if str(key) not in known}
    if missing:
        known |= _tried(missing, device, judging, world)
        if world.first:
            save(path, of, known)
    rows = {key: _row(calls, known[str(key)], kernels) for key, calls in families.items()}
    failed = {key[0] for key, row in rows.items() if row.form == "fused" and row.verdict.failures}
    install({key: row.form for key, row in rows.items()}, failed)
    return Found(of, list(rows.values()), path, len(missing))


def _tried(families: dict[str, list[Call]], device: torch.device, judging: Judge, world: World) -> dict[str, Verdict]:
    """Try some operations in the first process, with a bar; the others are told of each, and never wait for all."""
    found: list[Verdict] = []
    compiled = 0
    verdicts = iter(judging(list(families.values()), device))
    what = f"first use of {len(families)} operations on {device}"
    with tqdm(total=len(families), desc=what, unit="op", disable=not world.first) as bar:
        while len(found) < len(families):
            verdict: Verdict | None = world.shared(lambda: next(verdicts))
            if verdict is not None:
                found.append(verdict)
                bar.update()
            else:
                compiled += 1
                bar.set_postfix_str(f"compiled {compiled}")
    return dict(zip(families, found, strict=True))


def _row(calls: list[Call], verdict: Verdict, kernels: Tried) -> Row:
    row = Row(calls, verdict, verdict.best(at_any_price=kernels == "triton"))
    if kernels == "triton" and row.form == "fused":
        why = "; ".join(f"'{form}' {why}" for form, why in verdict.failures.items()) or "it has no kernel here"
        raise UserError(f"--kernels triton: {calls[-1].label}, {calls[-1].arithmetic}: {why}; use --kernels auto")
    return row
