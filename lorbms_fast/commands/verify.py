"""`lorbms-fast verify`: compare this installation with the numbers of the author's program, and try a GPU's kernels."""

import sys
from pathlib import Path
from typing import Literal

import torch
from rich.text import Text

from lorbms_fast.commands.tables import print_table
from lorbms_fast.config import Count, Impl, ModelConfig, preset_named
from lorbms_fast.devices import device_named
from lorbms_fast.engine.first_use import Tried
from lorbms_fast.engine.precision import chosen_precision
from lorbms_fast.errors import UserError
from lorbms_fast.kernels._common import dispatch
from lorbms_fast.measurement.step import forms_of_an_iteration
from lorbms_fast.progress import at_work
from lorbms_fast.verification.forward import fill_checks, forward_checks
from lorbms_fast.verification.golden import SHIPPED, Golden
from lorbms_fast.verification.gradients import gradient_checks
from lorbms_fast.verification.operations import operation_checks


def verify(
    *,
    golden: Path = SHIPPED,
    impl: Impl = "fast",
    dtype: Literal["float64", "float32"] = "float64",
    device: str = "cpu",
    preset: str = "thesis",
    batch_size: Count = 12,
    kernels: Tried = "auto",
    retune: bool = False,
) -> None:
    """Compare this installation with numbers that the author's own program made.

    Rebuilds weights and images by the fill rule, runs one forward pass, the gradients of all three losses and single
    operations, and prints each quantity's error beside what is allowed. With `--device cuda` all kernels of a training
    iteration are also compiled, checked and timed on that GPU, as `train` would on first use, which then only looks up
    what was found. Exits with status 1 if a quantity is out or a kernel is not right.

    Args:
        golden: Folder with forward.npz, grads.npz, ops.npz and params.json; its name prefix is read from prefix.txt.
        impl: Form of the networks to check.
        dtype: Arithmetic to compute in. The golden numbers are float32, so in float64 only their rounding differs.
        device: cuda or cuda:1 to try the kernels there; the golden numbers are always compared on the CPU.
        preset: Preset whose operations are tried on the GPU.
        batch_size: Reference images an iteration, on the GPU.
        kernels: triton ends at the first operation that has no right kernel; auto gives it the fused torch form.
        retune: Try again what was tried on this GPU before.
    """
    where, model = device_named(device), preset_named(preset).model  # first: what follows takes a minute
    numbers = Golden.open(golden, getattr(torch, dtype))
    with at_work("comparing with the author's numbers: a minute or two"):
        checks = [*fill_checks(numbers), *operation_checks(numbers, impl), *forward_checks(numbers, impl)]
        checks += gradient_checks(numbers, impl)
    rows = [
        [one.quantity, f"{one.error:.1e}", f"{one.tolerance:.1e}", "ok" if one.passed else Text("OUT", "bold red")]
        for one in checks
    ]
    print_table(["quantity", "error", "allowed", "verdict"], rows, f"{golden}: impl {impl}, {dtype}")
    failed = sum(not one.passed for one in checks)
    print(f"{len(checks) - failed} of {len(checks)} within tolerance")
    if where.type == "cuda":
        failed += try_kernels(where, model, batch_size, kernels, retune)
    if failed:
        sys.exit(1)


def try_kernels(device: torch.device, model: ModelConfig, batch_size: int, kernels: Tried, retune: bool) -> int:
    """Give the operations of an iteration their forms, print them, and count those whose kernels are not right."""
    if not dispatch.kernels_run_on(device):
        raise UserError(
            f"--device {device}: its kernels need the package triton, a GPU since Ampere, and TRITON_INTERPRET unset"
        )
    found = forms_of_an_iteration(model, batch_size, chosen_precision("auto", device), device, kernels, retune)
    found.tell(whole=True)
    return sum(bool(row.verdict.failures) for row in found.rows)
