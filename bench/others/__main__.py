"""`python -m bench.others`: time and memory of others' models before and after `accelerate`, into docs/kernels.md.

Each model is trained, forward and backward, as it was made and accelerated, in turns: a ratio is the median of those
of the rounds, of which the middle half are between the two numbers beside it. Freed memory stays with the process, as
fresh pages, which one form or the other gets by chance, take up to a twelfth of a step. Memory is the most bytes of
tensors alive at a time in a step, without parameters and their gradients; on a CPU the operations' own scratch memory
is not seen. With `--device cuda` or `--only` the table is printed, not written.
"""

import argparse
import copy
import datetime
import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

import torch
from torch import nn

from bench.others.models import CASES, channels_last, loss
from bench.report import replaced
from lorbms_fast.kernels import accelerate
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.measurement.machine import machine
from lorbms_fast.measurement.pairs import Pair, seconds
from lorbms_fast.measurement.peak import Alive

PAGE = Path(__file__).parents[2] / "docs" / "kernels.md"
LAYOUTS = ("contiguous", "channels_last")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Row:
    """Measurements of a model in one layout and dtype."""

    name: str
    layout: str
    dtype: str
    swapped: int
    times: Pair
    memory: Pair
    """Bytes, before and after."""

    def __str__(self) -> str:
        a, b = (1e-6 * bytes_ for bytes_ in (self.memory.a[0], self.memory.b[0]))
        low, high = self.times.middle_half
        return (
            f"| {self.name} | {self.layout} | {self.dtype} | {self.swapped} "
            f"| {1e3 * median(self.times.a):.0f} | {1e3 * median(self.times.b):.0f} "
            f"| **{self.times.ratio:.2f}** ({low:.2f} to {high:.2f}) "
            f"| {a:.0f} | {b:.0f} | **{a / b:.2f}** |"
        )


HEAD = """\
| model | maps | autocast | swapped | before, ms | after, ms | times faster | before, MB | after, MB | times less |
|---|---|---|---:|---:|---:|---:|---:|---:|---:|"""


def measure(name: str, layout: str, dtype: str, device: torch.device, rounds: int) -> Row:
    """Measure one row."""
    torch.manual_seed(0)
    case = CASES[name]
    model, x = case.measured().to(device), torch.randn(case.measured_shape, device=device)
    if layout == "channels_last":
        arranged = channels_last(x.dim())
        model = model.to(memory_format=arranged)  # type: ignore[call-overload]
        x = x.to(memory_format=arranged)
    faster = copy.deepcopy(model)
    report = accelerate(faster, save_memory=True)
    steps = [_step(m, x, DTYPES[dtype]) for m in (model, faster)]
    memory = [_peak(step, m, device) for step, m in zip(steps, (model, faster), strict=True)]
    times = [[seconds(step, device) for step in steps] for _ in range(rounds + 1)][1:]
    before, after = map(list, zip(*times, strict=True))
    return Row(name, layout, dtype, len(report.swapped), Pair(before, after), Pair(memory[:1], memory[1:]))


def _step(model: nn.Module, x: torch.Tensor, dtype: torch.dtype) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad(set_to_none=False)  # there before, and not of what a step needs
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            value = loss(model, x)
        value.backward()

    return step


def _peak(step: Callable[[], None], model: nn.Module, device: torch.device) -> float:
    step()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return float(torch.cuda.max_memory_allocated(device) - before)
    own = [tensor for p in model.parameters() for tensor in (p, p.grad) if tensor is not None]
    with Alive([*own, *model.buffers()]) as alive:
        step()
    return float(alive.peak)


def rows(names: list[str], device: torch.device, rounds: int) -> Iterator[Row]:
    """Measure all, telling what is done."""
    wanted = list(product(names, LAYOUTS, DTYPES))
    for number, (name, layout, dtype) in enumerate(wanted, 1):
        print(f"{number} of {len(wanted)}: {name}, {layout}, {dtype} ... ", end="", file=sys.stderr, flush=True)
        try:
            row = measure(name, layout, dtype, device, rounds)
        except ImportError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        print(f"{row.times.ratio:.2f} times faster", file=sys.stderr)
        yield row


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.others", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", metavar="NAME", help="models with this in their names")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    retain_freed_memory()
    device = torch.device(options.device)
    found = list(rows([name for name in CASES if options.only in name], device, options.rounds))
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    table = "\n".join([f"{date}, {machine()}.\n", HEAD, *map(str, found)])
    print(table)
    if device.type == "cpu" and not options.only:
        PAGE.write_text(replaced(PAGE.read_text(), "models of others", table))
        print(f"{PAGE} is new", file=sys.stderr)


if __name__ == "__main__":
    main()
