"""`make lock`: constraints-hashed.txt, the pinned set with the SHA-256 of the files that pip takes here.

pip itself tells them (`pip install --dry-run --report`), from what the package index publishes; nothing is installed.
torch is left to another index where a machine has no GPU: its CPU build has a hash in `TORCH_CPU`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HEAD = """# Written by `make lock` from constraints.txt: do not edit. For CPython 3.11 on Linux, x86-64.
#   pip install --require-hashes --no-deps -r constraints-hashed.txt
#   pip install --no-deps --no-build-isolation --editable .
# --no-deps, since all is listed, and torch of the package index asks for CUDA libraries that a CPU build does without.
"""
TORCH_CPU = {"torch==2.13.0": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"}
"""The CPU build that the tests ran with (2.13.0+cpu), which PyTorch's own index has and the package index has not."""


def main(pins: Path, target: Path) -> None:
    """Ask pip for every pinned file, and write the hashes."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        subprocess.run([*command, "--report", str(report), "--requirement", str(pins)], check=True)
        installs = json.loads(report.read_text())["install"]
    lines = sorted((line_of(install) for install in installs), key=str.lower)
    pinned = [line for line in pins.read_text().splitlines() if "==" in line]
    if len(lines) != len(pinned):
        sys.exit(f"{pins} pins {len(pinned)} packages, pip found {len(lines)}: is one meant for another system?")
    target.write_text(HEAD + "".join(lines))
    print(f"{target}: {len(lines)} packages")


def line_of(install: dict[str, dict[str, dict[str, dict[str, str]]]]) -> str:
    """A requirement with its hashes."""
    metadata, hashes = install["metadata"], [install["download_info"]["archive_info"]["hashes"]["sha256"]]
    requirement = f"{metadata['name']}=={metadata['version']}"
    if requirement in TORCH_CPU:
        hashes.append(TORCH_CPU[requirement])
    return " \\\n    ".join([requirement, *(f"--hash=sha256:{value}" for value in hashes)]) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
