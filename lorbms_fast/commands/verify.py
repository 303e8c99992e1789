"""`lorbms-fast verify`: compare this installation with the numbers of the author's program."""

import sys
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

from lorbms_fast.config import Impl
from lorbms_fast.verification.forward import fill_checks, forward_checks
from lorbms_fast.verification.golden import SHIPPED, Golden
from lorbms_fast.verification.gradients import gradient_checks
from lorbms_fast.verification.operations import operation_checks


def verify(*, golden: Path = SHIPPED, impl: Impl = "fast", dtype: Literal["float64", "float32"] = "float64") -> None:
    """Compare this installation with numbers that the author's own program made.

    Rebuilds weights and images by the fill rule, runs one forward pass, the gradients of all three losses and single
    operations, and prints each quantity's error beside what is allowed. Exits with status 1 if any is out.

    Args:
        golden: Folder with forward.npz, grads.npz, ops.npz and params.json; its name prefix is read from prefix.txt.
        impl: Form of the networks to check.
        dtype: Arithmetic to compute in. The golden numbers are float32, so in float64 only their rounding differs.
    """
    numbers = Golden.open(golden, getattr(torch, dtype))
    console = Console()
    table = Table("quantity", "error", "allowed", "verdict", title=f"{golden}: impl {impl}, {dtype}")
    failed = 0
    with console.status("computing"):
        for stage in (
            fill_checks(numbers),
            operation_checks(numbers, impl),
            forward_checks(numbers, impl),
            gradient_checks(numbers, impl),
        ):
            for check in stage:
                failed += not check.passed
                verdict = "ok" if check.passed else "[bold red]OUT[/]"
                table.add_row(check.quantity, f"{check.error:.1e}", f"{check.tolerance:.1e}", verdict)
    console.print(table)
    console.print(f"{table.row_count - failed} of {table.row_count} within tolerance")
    if failed:
        sys.exit(1)
