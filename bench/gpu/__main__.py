"""`python -m bench.gpu --out DIR`: everything that a machine with a GPU is asked, in order, each in its own process.

A phase that fails, hangs or kills its process costs its own time and spoils no other. What it found until then is in
DIR/findings.jsonl, and after each phase DIR/GPU.md is written anew.
"""

import argparse
import importlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn, TypeAlias

import torch

from bench.gpu.findings import Findings
from bench.gpu.page import write_page
from bench.gpu.setting import Setting
from lorbms_fast.errors import said

PHASES = {
    "machine": 25, "compilation": 90, "first_use": 60, "operations": 130, "sanitizer": 40, "captured": 60,
    "iteration": 90, "replay": 45, "host": 60, "models": 60,
}  # fmt: skip
"""Modules of bench.gpu.phases in their order, and the share of the time that is each one's. Unused time goes on to
those after it."""
PROGRAM = ["-m", "bench.gpu"]
ROOT = Path(__file__).parents[2]
MISSED = 3
"""Exit status where nothing is wrong, but something was not measured; 2 is that of mistakes in the command."""
LATE = "stopped at its deadline"
ENDING = 5
"""Seconds between being asked to end and being killed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all phases, or one in this process; returns the exit status: 1 if anything is wrong, 3 if not measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for findings.jsonl, GPU.md, log.txt")
    parser.add_argument("--minutes", type=float, default=8, help="for all phases together")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU: no kernels and no graphs, tiny shapes")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES), help="only these")
    parser.add_argument("--alone", choices=PHASES, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not (options.rehearse or torch.cuda.is_available()):
        print("torch sees no GPU here: add --rehearse to go through all phases on the CPU", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    if options.alone:
        return run_phase(options.alone, Setting(options.out, options.rehearse, options.until))
    setting = Setting(options.out, options.rehearse, time.monotonic() + 60 * options.minutes)
    for old in (setting.findings, setting.page, options.out / "log.txt"):
        old.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as caches:
        return run_all(setting, options.phases, Path(caches), forked if setting.rehearse else spawned)


Start = Callable[[list[str], dict[str, str], IO[str]], "Process"]
"""Starts `main(arguments)` in a process group of its own, with these variables and this file for all output."""
Process: TypeAlias = "subprocess.Popen[bytes] | Copy"


def spawned(arguments: list[str], environment: dict[str, str], log: IO[str]) -> Process:
    return subprocess.Popen(
        [sys.executable, *PROGRAM, *arguments], env=environment, stdout=log, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def forked(arguments: list[str], environment: dict[str, str], log: IO[str]) -> Process:
    """A copy of this process, which has imported everything: a rehearsal's, as a copy cannot use a GPU."""
    for phase in PHASES:
        importlib.import_module(f"bench.gpu.phases.{phase}")
    return Copy(os.fork() or _become(arguments, environment, log))


def _become(arguments: list[str], environment: dict[str, str], log: IO[str]) -> NoReturn:
    status = 70
    try:
        os.setsid()
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        os.environ.clear()
        os.environ.update(environment)
        status = main(arguments)
    finally:
        sys.stdout.flush()
        os._exit(status)


@dataclass(frozen=True)
class Copy:
    """A forked process."""

    pid: int

    def wait(self, seconds: float | None = None) -> int:
        """Wait as `subprocess.Popen.wait` does."""
        until = math.inf if seconds is None else time.monotonic() + seconds
        while True:
            try:
                done, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # waited for before
                return 0
            if done:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(f"process {self.pid}", seconds or 0)
            time.sleep(0.05)


def run_all(setting: Setting, phases: Sequence[str], caches: Path, start: Start = spawned) -> int:
    """Run phases, which share the folder `caches` for compiled kernels, one after the other.

    Returns 1 if anything is wrong, else `MISSED` if anything was not measured.
    """
    wrong, missed = 0, 0
    for number, phase in enumerate(phases):
        seconds = seconds_of(setting, phases[number:])
        began = time.monotonic()
        said = _in_a_process(setting, phase, seconds, caches, start)
        findings = Findings(setting.findings, phase)
        if said == LATE:
            findings.missed(f"stopped at its deadline of {seconds:.0f} s: what it had found until then is here")
        elif said:
            findings.note(said, wrong=True)
        findings.note(f"{time.monotonic() - began:.0f} s of {seconds:.0f}")
        wrong, missed = write_page(setting, phases)
        print(f"{phase}: {time.monotonic() - began:.0f} s{', ' + said if said else ''}", flush=True)
    print(f"{setting.page}: {wrong or 'nothing'} wrong, {missed or 'nothing'} not measured")
    return 1 if wrong else MISSED if missed else 0


def seconds_of(setting: Setting, phases: Sequence[str]) -> float:
    """The first phase's share of the time that is left for some."""
    shares = [PHASES[phase] for phase in phases]
    return max(1.0, setting.left() * shares[0] / sum(shares))


def _in_a_process(setting: Setting, phase: str, seconds: float, caches: Path, start: Start) -> str:
    """Run a phase to its end or its deadline; returns what went wrong with the process, or nothing."""
    until = time.monotonic() + seconds
    arguments = ["--out", str(setting.out), "--alone", phase, "--until", str(until), *["--rehearse"] * setting.rehearse]
    with (setting.out / "log.txt").open("a") as log:
        process = start(arguments, _environment(caches), log)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return LATE
        finally:
            _end(process)
    return "" if status in (0, 1) else f"ended with status {status}: see log.txt"


def _end(process: Process) -> None:
    """End a phase's process and all that it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _environment(caches: Path) -> dict[str, str]:
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "TRITON_CACHE_DIR": str(caches / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    environment.pop("TRITON_INTERPRET", None)
    return environment


def run_phase(phase: str, setting: Setting) -> int:
    """Run a phase in this process; what it raises is one of its lines. Returns 1 if it raised."""
    findings = Findings(setting.findings, phase)
    try:
        importlib.import_module(f"bench.gpu.phases.{phase}").run(findings, setting)
    except Exception as error:
        traceback.print_exc()
        findings.note(said(error), wrong=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
