"""`make lock`: constraints-hashed.txt, the pinned set with the SHA-256 of the files that pip takes here.

pip itself tells them (`pip install --dry-run --report`); nothing is installed. All files are the package index's but
one: where the machine has no GPU, torch is the CPU build of PyTorch's own index, `torch==X+cpu`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HEAD = """# Written by `make lock` from constraints.txt: do not edit. For CPython 3.11 on Linux, x86-64.
#   pip install --require-hashes --no-deps -r constraints-hashed.txt
#   pip install --no-deps --no-build-isolation --editable .
# --no-deps, since all is listed. torch is the CPU build, which PyTorch's own index has (--extra-index-url), and not the
# package index; for the CUDA build, take the line of torch out and install torch after the rest.
"""


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
    """A requirement with its hash."""
    metadata, hashes = install["metadata"], install["download_info"]["archive_info"]["hashes"]
    return f"{metadata['name']}=={metadata['version']} \\\n    --hash=sha256:{hashes['sha256']}\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
