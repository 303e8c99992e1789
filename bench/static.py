"""`python -m bench.static`: what can be known of the kernels without a GPU, into bench/STATIC.md.

One training iteration runs with every kernel launch written down instead of made; each kernel is then compiled for six
architectures at the shapes it was launched with. `--check` does it for each kind of kernel once, in a small model, and
fails on one that does not compile, on spilled registers that matter, or on a matrix product without tensor cores.
`--triton` (`make static`) does it with each supported version of Triton, in all arithmetics. What was compiled is kept
in bench/.static by the kernel's source, and not compiled again: it may be stopped at any time, and `--cached` tells of
what there is.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

os.environ.pop("TRITON_INTERPRET", None)
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
import triton

from bench.binaries import ARCHITECTURES, CACHE, Binary, binary, compiled_before, forget_lines
from bench.report import replaced
from bench.tritons import REQUIRED_BY, environment_of
from lorbms_fast import kernels
from lorbms_fast.atomic_io import write_json, write_text
from lorbms_fast.config import ModelConfig, Precision
from lorbms_fast.kernels import DenseBlock, Impl, lorbms, use_impl
from lorbms_fast.measurement.chains import BYTES_A_CYCLE
from lorbms_fast.measurement.gpus import GPUS
from lorbms_fast.measurement.launches import Launch, TorchOperations, recorded
from lorbms_fast.measurement.step import step
from lorbms_fast.measurement.work import MATRIX, arithmetic, work
from lorbms_fast.models import build
from lorbms_fast.progress import tqdm
from lorbms_fast.worker import end_with_parent

OF_VERSIONS = (80, 90)
"""Compiled for first, and alone where versions of Triton are compared."""
OF_OTHERS = (86, 90)
"""What the iteration does not run is compiled for the least shared memory, and for HGMMA."""
SPILLED = 0.1
"""Share of a launch's time at a data sheet's rates that spilled registers may take."""
STATIC = Path(__file__).parent / "STATIC.md"
BATCH = 12
Wanted = list[tuple[Launch, int]]
_wanted: Wanted = []


def main(arguments: list[str]) -> int:
    """Write the report, or check the small set; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.static", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compile each kind of kernel once, write nothing")
    parser.add_argument("--sm", type=int, nargs="+", choices=ARCHITECTURES, help="architectures; all by default")
    parser.add_argument("--cached", action="store_true", help="compile nothing, report what was compiled before")
    parser.add_argument(
        "--triton", nargs="*", choices=REQUIRED_BY, help="compile all arithmetics with these; all if none"
    )
    parser.add_argument("--note", action="store_true", help="the same with the Triton that is imported")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that compile")
    options = parser.parse_args(arguments)
    if options.triton is not None:
        return with_versions(options.triton or list(REQUIRED_BY), arguments)
    others: list[Launch] = []
    if options.check:
        launches, architectures = of_each_kind(), options.sm or OF_VERSIONS
    elif options.note:
        launches = [launch for name in get_args(Precision) for launch in of_an_iteration(name)] + of_other_models()
        architectures = options.sm or OF_VERSIONS
    else:
        launches, architectures = of_an_iteration(), options.sm or ARCHITECTURES
        others = of_other_operations() + of_other_models()
    kinds = {launch.variant: launch for launch in launches + others}
    forget_lines()
    ran = {launch.variant for launch in launches}
    in_order = sorted(architectures, key=lambda architecture: architecture not in OF_VERSIONS)
    wanted = [(launch, architecture) for architecture in in_order for launch in kinds.values()]
    wanted = [(launch, sm) for launch, sm in wanted if launch.variant in ran or sm in OF_OTHERS]
    outcomes: list[Binary | str | None] = [compiled_before(*pair) for pair in wanted]
    if not options.cached:
        outcomes = [*compile_all(wanted, options.workers)]
    found = {(launch.variant, sm): o for (launch, sm), o in zip(wanted, outcomes, strict=True) if isinstance(o, Binary)}
    faults = [
        fault
        for (launch, architecture), outcome in zip(wanted, outcomes, strict=True)
        if outcome is not None
        for fault in faults_of(launch, architecture, outcome)
    ]
    if options.note or (options.check and not options.sm):
        of = "kinds" if options.check else "all"
        note(of, architectures, len(wanted), len(found), outcomes.count(None), faults)
    elif not options.check:
        page = report(STATIC.read_text(), launches, others, architectures, found, outcomes.count(None), faults)
        write_text(STATIC, page)
        print(f"{STATIC} is new: {len(found)} binaries")
    missing = f", {outcomes.count(None)} not compiled yet" if None in outcomes else ""
    summary = f"{len(found)} binaries by Triton {triton.__version__}: no spills that matter, tensor cores everywhere"
    print("\n".join(faults) or summary + missing)
    return 1 if faults else 0


def compile_all(wanted: Wanted, workers: int) -> list[Binary | str]:
    """Compile for each pair's architecture, in several processes; what failed is said instead."""
    global _wanted
    _wanted = wanted  # Forked, as kernels cannot be pickled: the processes find them where they were.
    with get_context("fork").Pool(workers, end_with_parent) as pool:
        return list(tqdm(pool.imap(_attempt, range(len(wanted))), "compiling", len(wanted), unit="kernel"))


def _attempt(i: int) -> Binary | str:
    try:
        return binary(*_wanted[i])
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"


def with_versions(versions: list[str], arguments: list[str]) -> int:
    """Do what the other arguments say with each of these versions of Triton, in processes of their own.

    Without `--check` that is to compile all arithmetics, and to write the page anew; the installed version goes first.
    """
    chosen = {"--triton", *REQUIRED_BY}
    rest = [argument for argument in arguments if argument not in chosen]
    command = [sys.executable, "-m", "bench.static", *rest]
    each = command if "--check" in rest else [*command, "--note"]
    ordered = sorted(versions, key=lambda version: version != triton.__version__)
    failed = [version for version in ordered if subprocess.run(each, env=environment_of(version)).returncode]
    print(f"failed with Triton {', '.join(failed)}" if failed else f"no faults with Triton {', '.join(ordered)}")
    of_page = 0 if "--check" in rest else subprocess.run(command).returncode
    return 1 if failed or of_page else 0


def note(of: str, architectures: Sequence[int], wanted: int, compiled: int, missing: int, faults: list[str]) -> None:
    """Keep for the report what became of `all` kernels, or of all `kinds`, with the Triton that is imported."""
    kept = {"sm": list(architectures), "kernels": wanted, "compiled": compiled, "missing": missing, "faults": faults}
    write_json(_noted(of, triton.__version__), kept)


def _noted(of: str, version: str) -> Path:
    return CACHE / f"triton-{version}-{of}.json"


def version_table() -> list[str]:
    """Rows of what was noted: a version of Triton, the torch that requires it, and what became of the kernels."""
    lines = [
        "| Triton | required by torch | each kind, compiled | all, sm | kernels | compiled | did not compile | "
        "not tried yet | other faults |",
        "|---|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for version, torchs in REQUIRED_BY.items():
        of_kinds, of_all = (_noted(of, version) for of in ("kinds", "all"))
        kinds = json.loads(of_kinds.read_text()) if of_kinds.exists() else None
        told = ""
        if kinds:
            tried, faults = kinds["kernels"] - kinds["missing"], len(kinds["faults"])
            told = f"{kinds['compiled']} of {tried} tried (all: {kinds['kernels']}), {faults} faults"
        if not of_all.exists():
            lines.append(f"| {version} | {torchs} | {told} | | | | | all | |")
            continue
        kept = json.loads(of_all.read_text())
        kernels, compiled, missing = kept["kernels"], kept["compiled"], kept["missing"]
        failed, architectures = kernels - compiled - missing, ", ".join(map(str, kept["sm"]))
        cells = [version, torchs, told, architectures, kernels, compiled, failed, missing, len(kept["faults"]) - failed]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def of_each_kind() -> list[Launch]:
    """One launch of each kernel with each combination of its switches, in a small model's iteration in bfloat16."""
    small = ModelConfig(
        stem=16, layers=(1, 2, 2, 1, 1), chunk=16, discriminator_width=16, classifier_widths=(16,) * 5,
        classifier_hidden=16,
    )  # fmt: skip
    launches = of_an_iteration("bfloat16", small, 2) + of_a_small_block()
    with recorded() as of_data:
        lorbms.assemble_batch(torch.empty((9, 16, 16, 3), dtype=torch.uint8), torch.empty((5, 2), dtype=torch.int64))
        _there_and_back(kernels.max_pool2x2(_empty(2, 16, 8, 8, dtype=torch.bfloat16)))
        for activation in ("leaky_relu", "silu", "gelu", "gelu_tanh"):
            for side in (8, 256):
                norm = kernels.InstanceNormAct2d(16, activation, affine=True)
                _there_and_back(norm(_empty(1, 16, side, side, dtype=torch.bfloat16)))
    return list({(launch.name, *switches(launch)): launch for launch in launches + of_data}.values())


def switches(launch: Launch) -> list[tuple[str, bool | str]]:
    """List a kernel's switches: constants true or false, activations, and tensors that are None."""
    arguments = launch.arguments.items()
    found: list[tuple[str, bool | str]] = []
    for name, value in arguments:
        if value is None or isinstance(value, bool):
            found.append((name, bool(value)))
        elif name == "ACTIVATION":
            found.append((name, value))
    return found


def of_a_small_block() -> list[Launch]:
    """Launches of one small dense block, with instance norm forward and backward, with ReLU forward, in bfloat16."""
    x = torch.empty((4, 32, 16, 16), dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    with recorded() as launches:
        y = DenseBlock(32, 3, activation="instance_norm_relu")(x.requires_grad_())
        y.backward(torch.empty_like(y))
        DenseBlock(32, 3)(x.detach())
    return launches


def of_an_iteration(
    precision: Precision = "bfloat16", model: ModelConfig | None = None, batch_size: int = BATCH
) -> list[Launch]:
    """Launches of one iteration, by default as the thesis trains and under bfloat16 autocast."""
    one_iteration = step("fast", model or ModelConfig(), batch_size, precision)
    with recorded():
        one_iteration()  # the first makes the optimizers' state
    with recorded() as launches:
        one_iteration()
    return launches


def of_other_models() -> list[Launch]:
    """Launches of blocks that strangers have, in float32 (TF32 and not) and float16: 56 x 56, growth 12 and 32."""
    with recorded() as launches:
        for dtype, growth, tf32 in ((torch.float32, 12, True), (torch.float32, 32, False), (torch.float16, 32, True)):
            x = torch.empty((8, 64, 56, 56), dtype=dtype).contiguous(memory_format=torch.channels_last)
            with torch.backends.cudnn.flags(allow_tf32=tf32):
                y = DenseBlock(64, 3, growth, activation="instance_norm_relu")(x.requires_grad_())
                y.backward(torch.empty_like(y))
    return launches


def of_other_operations() -> list[Launch]:
    """Launches of what the library offers, whether or not the iteration runs it, at the model's shapes."""
    N, S = BATCH, 64
    layouts = (torch.contiguous_format, torch.channels_last)
    with recorded() as launches:
        for dtype in (torch.bfloat16, torch.float32):
            I_ref, I_hat, I_prime = (_empty(N, 3, S, S, dtype=dtype) for _ in range(3))
            D_mix, logits = (_empty(*shape, dtype=dtype) for shape in ((N, 1, 4, 4), (4, N, 4)))
            mask = torch.ones(N, 4).bool()
            lorbms.loss_head(I_ref, I_hat, I_prime, D_mix, logits, mask, (1.0, 1.0, 1.0), (1.0,) * 4)[0].backward()
            store, rows = torch.empty((100, S, S, 3), dtype=torch.uint8), torch.empty((5, N), dtype=torch.int64)
            for layout in layouts:
                lorbms.assemble_batch(store, rows, dtype=dtype, channels_last=layout == torch.channels_last)
                for C, side in ((112, 64), (192, 32), (304, 16), (464, 8), (656, 4)):
                    x = _empty(2 * N, C, side, side, dtype=dtype, layout=layout)
                    _there_and_back(kernels.max_pool2x2(kernels.instance_norm_relu(x)))
                for C, O, side in ((192, 656, 2), (192, 464, 4), (160, 304, 8), (112, 192, 16), (80, 112, 32)):
                    x = _empty(2 * N, C, side, side, dtype=dtype, layout=layout)
                    _there_and_back(kernels.resize_conv(x, _empty(O, C, 3, 3, dtype=dtype)))
                for C, side in ((96, 29), (256, 14), (384, 6)):
                    x = _empty(4 * N, C, side, side, dtype=dtype, layout=layout)
                    _there_and_back(kernels.relu_grouped_batch_norm(x, torch.empty(C), torch.empty(C), 4)[0])
        for kind, shape, layout in (
            (kernels.InstanceNorm2d, (2, 64, 512, 512), torch.channels_last),
            (kernels.InstanceNorm2d, (2, 64, 128, 128), torch.contiguous_format),
            (kernels.InstanceNorm3d, (2, 32, 64, 96, 96), torch.channels_last_3d),
        ):
            _there_and_back(kind(shape[1], affine=True)(_empty(*shape, dtype=torch.float16, layout=layout)))
        for name, dtype in (("leaky_relu", torch.bfloat16), ("silu", torch.float32), ("gelu", torch.float16)):
            for shape, layout in product(((2, 64, 512, 512), (8, 256, 32, 32)), reversed(layouts)):
                norm = kernels.InstanceNormAct2d(shape[1], name, affine=True)
                _there_and_back(norm(_empty(*shape, dtype=dtype, layout=layout)))
    return launches


def _empty(*shape: int, dtype: torch.dtype, layout: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype).contiguous(memory_format=layout).requires_grad_()


def _there_and_back(y: torch.Tensor) -> None:
    y.backward(torch.empty_like(y))


def faults_of(launch: Launch, architecture: int, compiled: Binary | str) -> list[str]:
    """List faults that no shipped kernel may have."""
    place = f"{launch.name} {launch.shape} on sm_{architecture}"
    if isinstance(compiled, str):
        return [f"{place} does not compile: {compiled}"]
    faults = []
    if (compiled.spills or compiled.local) and _spilled(launch, compiled, architecture) > SPILLED:
        faults.append(f"{place}: {compiled.local} bytes of registers spilled per thread")
    if not compiled.resident(architecture):
        faults.append(f"{place}: {compiled.shared} bytes of shared memory do not fit")
    if launch.name in MATRIX and not compiled.tensor and launch.arguments["PRECISION"] != "ieee":
        faults.append(f"{place}: no tensor cores")
    return faults


def _spilled(launch: Launch, compiled: Binary, architecture: int) -> float:
    """Time that spilled registers take in the first-level cache, to the time of the launch at a data sheet's rates.

    Outside of loops each is stored once and loaded once by every thread; inside, nobody knows how often.
    """
    if compiled.in_loops:
        return math.inf
    moved = 2 * compiled.local * 32 * compiled.warps * launch.programs
    gpus = [gpu for gpu in GPUS if gpu.architecture == architecture] or GPUS
    cost = work(launch)
    return max(
        moved / (BYTES_A_CYCLE * min(launch.programs, gpu.multiprocessors) * gpu.clock)
        / gpu.roofline(cost, launch.programs, arithmetic(launch))
        for gpu in gpus
    )  # fmt: skip


def report(
    page: str,
    launches: list[Launch],
    others: list[Launch],
    architectures: Sequence[int],
    found: dict[tuple[str, int], Binary],
    missing: int,
    faults: list[str],
) -> str:
    """The text of bench/STATIC.md, with its tables and counts anew."""
    kinds = {launch.variant: launch for launch in launches + others}
    times = Counter(launch.variant for launch in launches)
    spilled = [binary.local for binary in found.values() if binary.local and not binary.in_loops]
    told = [
        f"{len(found)} binaries by Triton {triton.__version__} of {len(kinds)} specialised kernels; {missing} are not "
        "compiled yet.",
        f"Spilled registers that matter, or matrix products without tensor cores: {len(faults) or 'none'}.",
        *(f"- {fault}" for fault in faults),
        f"Registers spilled outside of all loops, on which a launch spends at most {SPILLED:.0%} of its time, are not",
        f"among them: {len(spilled)} binaries, up to {max(spilled, default=0)} bytes a thread.",
    ]
    lines = [
        f"| kernel | shape | times | programs | warps | {' | '.join(f'sm_{each}' for each in architectures)} |",
        "|---|---|---:|---:|---:|" + "---|" * len(architectures),
    ]
    for variant, launch in kinds.items():
        binaries = {architecture: found.get((variant, architecture)) for architecture in architectures}
        cells = " | ".join(cell(compiled, architecture) for architecture, compiled in binaries.items())
        warps = next((compiled.warps for compiled in binaries.values() if compiled), "")
        lines.append(f"| {launch.name} | {launch.shape} | {times[variant]} | {launch.programs} | {warps} | {cells} |")
    parts = {"found": told, "versions": version_table(), "launches": launch_table(), "binaries": lines}
    for name, part in parts.items():
        page = replaced(page, name, "\n".join(["", *part, ""]))
    return page


def cell(compiled: Binary | None, architecture: int) -> str:
    if compiled is None:
        return ""
    spilled = f", **{compiled.local} B spilled**" if compiled.local else ""
    tensor = f", {compiled.tensor} {compiled.kind}" if compiled.tensor else ""
    share = compiled.occupancy(architecture)
    return f"{compiled.registers} r, {compiled.shared / 1024:.0f} KB, {share:.0%}{tensor}{spilled}"


def launch_table() -> list[str]:
    """Launches of a layer, a network and an iteration, in each form."""
    lines = ["| what | reference | torch | Triton form: ours + torch's |", "|---|---:|---:|---:|"]
    forms: tuple[Impl, ...] = "reference", "fused"
    for name, work_in in _counted().items():
        cells = [str(launch_counts(work_in, impl)[1]) for impl in forms]
        ours, others = launch_counts(work_in, "triton")
        lines.append(f"| {name} | {' | '.join(cells)} | **{ours + others}** = {ours} + {others} |")
    return lines


def launch_counts(work_in: Callable[[Impl], Callable[[], object]], impl: Impl) -> tuple[int, int]:
    """Launches of ours, and operations of torch's own."""
    run = work_in(impl)
    with recorded() if impl == "triton" else use_impl(impl):
        run()  # a first iteration makes the optimizers' state
    if impl == "triton":
        with recorded() as launches, TorchOperations() as operations:
            run()
        return len(launches), operations.count
    with use_impl(impl), TorchOperations() as operations:
        run()
    return 0, operations.count


# How many images only Triton's grids and splitting ask; the other forms do the same operations for fewer.
def _counted() -> dict[str, Callable[[Impl], Callable[[], object]]]:
    model = ModelConfig()

    def block(impl: Impl) -> Callable[[], object]:
        module, x = DenseBlock(192, 7, activation="instance_norm_relu"), torch.zeros(2, 192, 16, 16)
        return lambda: module(x)

    def forward(name: str, one: torch.Tensor, count: int, impl: Impl) -> Callable[[], object]:
        network = getattr(build(model, "reference" if impl == "reference" else "fast"), name)
        inputs = one.repeat(count if impl == "triton" else 1, *[1] * (one.dim() - 1))
        return torch.no_grad()(lambda: kernels.passes(network, 1)[0](inputs))

    def iteration(impl: Impl) -> Callable[[], object]:
        return step("reference" if impl == "reference" else "fast", model, BATCH if impl == "triton" else 2)

    return {
        "dense block of 7 layers, forward": block,
        "encoder, forward": partial(forward, "enc", torch.zeros(1, 3, model.image_size, model.image_size), 3 * BATCH),
        "decoder, forward": partial(forward, "dec", torch.zeros(1, 4, model.chunk), 2 * BATCH),
        "iteration": iteration,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
