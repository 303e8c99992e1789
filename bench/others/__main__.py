"""`python -m bench.others`: time and memory of others' models before and after `accelerate`, into docs/kernels.md.

Each model is trained, forward and backward, as it was made and accelerated, in turns: a ratio is the median of those
of the rounds, of which the middle half are between the two numbers beside it. Freed memory stays with the process, as
fresh pages, which one form or the other gets by chance, take up to a twelfth of a step. Memory is the most bytes of
tensors alive at a time in a step, without parameters and their gradients; on a CPU the operations' own scratch memory
is not seen. With `--device cuda`, with 16 times the images, or `--only` the table is printed, not written.
"""

import argparse
import datetime
import sys
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch

from bench.others.measuring import Row, measure
from bench.others.models import CASES, DTYPES, LAYOUTS
from bench.report import replaced
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.measurement.machine import machine

PAGE = Path(__file__).parents[2] / "docs" / "kernels.md"
HEAD = """\
| model | maps | autocast | swapped | before, ms | after, ms | times faster | before, MB | after, MB | times less |
|---|---|---|---:|---:|---:|---:|---:|---:|---:|"""


def line(row: Row) -> str:
    name, layout, dtype, swapped, before, after, faster, more, less, saved = row.cells.values()
    low, high = row.times.middle_half
    return (
        f"| {name} | {layout} | {dtype} | {swapped} | {before:.0f} | {after:.0f} "
        f"| **{faster:.2f}** ({low:.2f} to {high:.2f}) | {more:.0f} | {less:.0f} | **{saved:.2f}** |"
    )


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
    table = "\n".join([f"{date}, {machine()}.\n", HEAD, *map(line, found)])
    print(table)
    if device.type == "cpu" and not options.only:
        PAGE.write_text(replaced(PAGE.read_text(), "models of others", table))
        print(f"{PAGE} is new", file=sys.stderr)


if __name__ == "__main__":
    main()
