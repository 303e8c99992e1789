"""`make lock`: constraints-hashed.txt, the pinned set with the SHA-256 of the files that pip takes here.

pip itself tells them (`pip install --dry-run --report`); nothing is installed. All files are the package index's but
one: where the machine has no GPU, torch is the CPU build of PyTorch's own index, `torch==X+cpu`.

First it is asked whether what is pinned can be installed together: here, and with each supported Python from the
package index, where torch for Linux is the CUDA build, which requires one version of Triton.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAD = """# Written by `make lock` from constraints.txt: do not edit. For CPython 3.11 on Linux, x86-64.
#   pip install --require-hashes --no-deps -r constraints-hashed.txt
#   pip install --no-deps --no-build-isolation --editable .
# --no-deps, since all is listed. torch is the CPU build, which PyTorch's own index has (--extra-index-url), and not the
# package index; for the CUDA build, take the line of torch out and install torch after the rest.
"""
PYTHONS = ("3.11", "3.12", "3.13")
_PLATFORMS = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(5, 40)]
_PLATFORMS += [f"--platform={name}_x86_64" for name in ("manylinux1", "manylinux2010", "manylinux2014", "linux")]


def main(pins: Path, target: Path) -> None:
    """Check the pins, ask pip for every pinned file, and write the hashes."""
    pinned = pins_of(pins)
    installs = report(pinned)
    faults = clashes(installs)
    for python in PYTHONS:
        faults += [f"Python {python}: {fault}" for fault in clashes(report(pinned, python), python)]
    if faults:
        sys.exit("\n".join(faults))
    lines = sorted((line_of(install) for install in installs), key=str.lower)
    if len(lines) != len(pinned):
        sys.exit(f"{pins} pins {len(pinned)} packages, pip found {len(lines)}: is one meant for another system?")
    target.write_text(HEAD + "".join(lines))
    print(f"{target}: {len(lines)} packages")


def pins_of(path: Path) -> list[str]:
    """Lines of a constraints file that pin a package."""
    return [line for line in path.read_text().splitlines() if "==" in line]


def report(pins: Sequence[str], python: str | None = None) -> list[dict[str, Any]]:
    """Ask pip which files it would take for pins: as configured here, or of the index alone for another Python."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    with tempfile.TemporaryDirectory() as folder:
        if python:
            command[3:3] = ["--isolated"]
            command += [f"--python-version={python}", f"--target={folder}", *_PLATFORMS]
        found = Path(folder, "report.json")
        subprocess.run([*command, f"--report={found}", *pins], check=True)
        installs: list[dict[str, Any]] = json.loads(found.read_text())["install"]
    return installs


def clashes(installs: Sequence[dict[str, Any]], python: str | None = None) -> list[str]:
    """Say where one package requires another in a version that is not the one beside it."""
    environment = {name: str(value) for name, value in default_environment().items()} | {"extra": ""}
    if python:
        environment |= {"python_version": python, "python_full_version": f"{python}.0"}
    packages = [install["metadata"] for install in installs]
    versions = {canonicalize_name(package["name"]): package["version"] for package in packages}
    faults = []
    for package in packages:
        for required in map(Requirement, package.get("requires_dist", [])):
            version = versions.get(canonicalize_name(required.name))
            if version is None or (required.marker and not required.marker.evaluate(environment)):
                continue
            if not required.specifier.contains(version, prereleases=True):
                faults.append(f"{package['name']} {package['version']} requires {required}, but {version} is pinned")
    return faults


def line_of(install: dict[str, Any]) -> str:
    """A requirement with its hash."""
    metadata, hashes = install["metadata"], install["download_info"]["archive_info"]["hashes"]
    return f"{metadata['name']}=={metadata['version']} \\\n    --hash=sha256:{hashes['sha256']}\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
