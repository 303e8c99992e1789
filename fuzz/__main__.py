"""`python -m fuzz`, which `make fuzz` calls: atheris on every reader for some time, and a table of what came of it."""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from fuzz.readers import NAMES

FOUND = Path(__file__).parent / ".found"


def main() -> int:
    """Fuzz one reader after the other; the exit status is 1 when one of them has a finding."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    options = parser.parse_args()
    if unknown := set(options.readers) - set(NAMES):
        parser.error(f"there is no reader {min(unknown)}: choose of {', '.join(NAMES)}")
    lines = [f"{'reader':<20}{'asked':>10}{'seconds':>9}  finding"]
    print(lines[0], flush=True)
    findings = 0
    for name in options.readers or NAMES:
        started = time.monotonic()
        asked, finding = fuzzed(name, options.seconds)
        findings += finding is not None
        print(f"{name:<20}{asked:>10,}{time.monotonic() - started:>9.0f}  {finding or 'none'}", flush=True)
    return min(findings, 1)


def fuzzed(name: str, seconds: int) -> tuple[int, str | None]:
    """How often a reader was asked, and where what it could not bear and its log lie, if there is any."""
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    command = [
        *(sys.executable, "-m", "fuzz.harness", name, str(folder / "corpus")),
        *(f"-max_total_time={seconds}", "-max_len=70000", "-print_final_stats=1", f"-artifact_prefix={folder}/"),
    ]
    with log.open("wb") as output:
        ended = subprocess.run(command, stdout=output, stderr=output, env=os.environ | {"OMP_NUM_THREADS": "1"})
    text = log.read_text(errors="replace")
    counts = re.findall(r"number_of_executed_units:\s*(\d+)", text) or re.findall(r"^#(\d+)", text, re.MULTILINE)
    asked = int(counts[-1]) if counts else 0
    if ended.returncode == 0:
        return asked, None
    raised = re.findall(r"^(\w*(?:Error|Warning|Exception)\b.*)$", text, re.MULTILINE)
    return asked, f"{raised[0] if raised else f'exit status {ended.returncode}'} ({log})"


if __name__ == "__main__":
    sys.exit(main())
