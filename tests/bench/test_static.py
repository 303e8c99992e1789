"""Kernels compiled ahead of time, and what is said of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.tritons import OLDEST, REQUIRED_BY, environment_of

PINNED = pytest.importorskip("triton").__version__
ROOT = Path(__file__).parents[2]


def run(*arguments: str, version: str = PINNED) -> subprocess.CompletedProcess[str]:
    """Python with a version of Triton, if it can be had."""
    environment = os.environ
    if version != PINNED:
        try:
            environment = environment_of(version)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"Triton {version} cannot be had: {error.stderr.strip()[-200:]}")
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("version", "sm"), [(PINNED, "90"), (OLDEST, "80")])
def test_each_kind_of_kernel_compiles_spills_nothing_and_uses_tensor_cores(version, sm):
    ran = run("-m", "bench.static", "--check", "--sm", sm, "--workers", "2", version=version)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"by Triton {version}:" in ran.stdout


def test_the_pinned_triton_is_among_the_supported():
    assert PINNED in REQUIRED_BY


KEEPS = """
import json
import bench.binaries as binaries, bench.static as static
from pathlib import Path
binaries.CACHE = static.CACHE = Path(FOLDER)
launches = static.of_a_small_block()
(launch, *_), (other, *_) = ([each for each in launches if each.name == f"dense_block.{name}"] for name in NAMES)
binaries.forget_lines()
place = binaries._place(launch, 90)
assert binaries.compiled_before(launch, 90) is None
binaries.triton.compile = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("PassManager::run failed"))
assert binaries.binary(launch, 90) == binaries.compiled_before(launch, 90) == "RuntimeError: PassManager::run failed"
launch.kernel.starting_line_number += 7
binaries.forget_lines()
assert binaries._place(launch, 90) == place  # as it is if something above is edited
kept = binaries._place(other, 90)
launch.kernel._unsafe_update_src(launch.kernel.src + "    pass")
assert binaries._place(launch, 90) != place
assert binaries._place(other, 90) == kept
static.note("all", (80, 90), 10, 7, 1, ["two do not compile", "of them", "one spills"])
static.note("kinds", (80, 90), 5, 4, 1, [])
print(static.version_table())
"""


def test_what_was_compiled_is_known_by_its_source_and_the_rest_is_told_of(tmp_path):
    settings = f"FOLDER, NAMES = {str(tmp_path)!r}, ('solve', 'gradients')"
    ran = run("-c", settings + KEEPS)
    assert ran.returncode == 0, ran.stderr
    rows = {row.split(" | ")[0].strip("| "): row for row in eval(ran.stdout)[2:]}
    assert rows.keys() == REQUIRED_BY.keys()
    assert rows[PINNED].endswith("| 4 of 4 tried (all: 5), 0 faults | 80, 90 | 10 | 7 | 2 | 1 | 1 |")
    assert rows[OLDEST].endswith("| | | | | all | |")


FINDS_FAULTS = """
from dataclasses import replace
from itertools import takewhile
import bench.static as static
from bench.binaries import Binary
launched = static.of_a_small_block()
launches = {launch.kernel.__name__: launch for launch in reversed(launched)}
assert {"activate", "convolve", "solve", "solve_transposed", "gradients"} == set(launches)
good = Binary(registers=100, local=0, shared=1000, warps=4, spills=0, tensor=8, kind="HMMA")
spilled = Binary(registers=255, local=64, shared=1000, warps=4, spills=9, tensor=8, kind="HMMA")
scalar = Binary(registers=100, local=0, shared=1000, warps=4, spills=0, tensor=0, kind="")
assert static.faults_of(launches["solve"], 90, good) == []
assert "64 bytes" in static.faults_of(launches["activate"], 90, spilled)[0]
once = replace(spilled, local=8, in_loops=False)
assert static.faults_of(launches["gradients"], 90, once) == []
assert "8192 bytes" in static.faults_of(launches["gradients"], 90, replace(once, local=8192))[0]
assert "no tensor cores" in static.faults_of(launches["solve"], 90, scalar)[0]
assert static.faults_of(launches["activate"], 90, scalar) == []
forward = takewhile(lambda launch: launch.name != "dense_block.solve_transposed", launched)
print(sum(static.work(launch).flops for launch in forward))
assert good.resident(80) == 4 and good.occupancy(80) == 0.25  # 104 registers a thread: 19 warps fit, so 4 programs
"""


def test_faults_are_found_and_work_is_counted():
    ran = run("-c", FINDS_FAULTS)
    assert ran.returncode == 0, ran.stderr
    # 4 images of 16 x 16, 9 taps, from 32 maps of the input to 48 new ones, and three times from 16 of these to 16.
    assert float(ran.stdout) == 2 * 4 * 16 * 16 * 9 * (48 * 32 + 3 * 16 * 16)


@pytest.mark.parametrize(("where", "expected"), [("before", False), ("inside", True), ("after", False)])
def test_spills_inside_a_loop_are_told_from_others(where, expected):
    """As nvdisasm writes them, with the loop that every kernel ends in and a jump ahead."""
    spill = {where: "        /*0090*/                   STL [R1], R8 ;\n"}
    code = (
        "        /*0010*/              @P0  BRA `(.L_x_2) ;\n" + spill.get("before", "") + ".L_x_1:\n"
        "        /*0020*/                   HMMA.16816.F32 R4, R8, R12, R4 ;\n" + spill.get("inside", "")
        + "        /*0030*/              @P1  BRA `(.L_x_1) ;\n" + spill.get("after", "") + ".L_x_2:\n"
        "        /*0040*/                   EXIT ;\n.L_x_3:\n        /*0050*/                   BRA `(.L_x_3);\n"
    )  # fmt: skip
    assert run_loops(code) is expected


def run_loops(code: str) -> bool:
    from bench.binaries import spills_in_loops

    return spills_in_loops(code)


COUNTS = """
import bench.static as static
of = static._counted()
print(sum(static.launch_counts(of["encoder, forward"], "triton")))
"""


def test_the_encoder_takes_few_launches():
    ran = run("-c", COUNTS)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) <= 33  # at 32x32 and 16x16 a layer is a launch: short chains instead of two long ones
