"""`python -m tools.import_graph`: which packages of lorbms_fast import which, and whether layer by layer.

A package here is a folder or a module directly in `lorbms_fast`; kernels and dataloader are two of them. Imports inside
functions and those for type checkers count as well. The order of layers is the block `layers` of docs/architecture.md:
a line a layer, the lowest last; a package imports packages of lower lines only.
"""

import ast
import re
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
NAME = "lorbms_fast"

Graph = dict[str, dict[str, list[str]]]
"""package -> package that it imports -> where (`file:line`)."""


def main() -> int:
    """Print the graph; the exit status is 1 where two packages import each other or one imports upwards."""
    found, layers = graph(), order()
    for package in sorted(found, key=lambda name: (-layers.get(name, -1), name)):
        print(f"{package:<14} -> {' '.join(sorted(found[package])) or '(nothing)'}")
    loops, steps = pairs(found), upwards(found, layers)
    print(f"\n{len(found)} packages, {sum(map(len, found.values()))} arrows, {len(loops)} pairs import each other")
    for one, other in loops:
        print(f"{one} <-> {other}: {' '.join(found[one][other])} | {' '.join(found[other][one])}")
    print(f"{len(steps)} arrows that do not lead downwards")
    for one, other in steps:
        print(f"{one} -> {other}: {' '.join(found[one][other])}")
    return min(len(loops) + len(steps), 1)


def graph() -> Graph:
    """The imports of every package."""
    found: Graph = {}
    for path in (ROOT / NAME).iterdir():
        if path.suffix == ".py" and path.name != "__init__.py":
            _add(found, path.stem, [path])
        elif (path / "__init__.py").is_file():
            _add(found, path.name, path.resolve().rglob("*.py"))
    return {
        package: {name: where for name, where in arrows.items() if name in found} for package, arrows in found.items()
    }


def _add(found: Graph, package: str, files: Iterator[Path] | list[Path]) -> None:
    arrows = found.setdefault(package, {})
    for file in sorted(files):
        for line, name in imported(ast.parse(file.read_text())):
            if name != package:
                arrows.setdefault(name, []).append(f"{file.relative_to(ROOT)}:{line}")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and package of every import of ours in a module."""
    for node in ast.walk(tree):
        names: list[str] = []
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module), level=0):
                names = [f"{module}.{alias.name}" for alias in node.names] if module == NAME else [module]
        for name in names:
            if name.startswith(f"{NAME}."):
                yield node.lineno, name.split(".")[1]  # type: ignore[attr-defined]


def order() -> dict[str, int]:
    """package -> height of its layer."""
    (block,) = re.findall(r"^```layers\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.split() for line in block.splitlines()]
    return {package: height for height, line in enumerate(reversed(lines)) for package in line}


def pairs(found: Graph) -> list[tuple[str, str]]:
    """Packages that import each other."""
    return [
        (one, other) for one, other in combinations(sorted(found), 2) if other in found[one] and one in found[other]
    ]


def upwards(found: Graph, layers: dict[str, int]) -> list[tuple[str, str]]:
    """Arrows to a package that is not in a lower layer, as far as the layers name both."""
    arrows = [(one, other) for one in sorted(found) for other in sorted(found[one])]
    return [(one, other) for one, other in arrows if layers.get(other, -1) >= layers.get(one, len(layers))]


if __name__ == "__main__":
    sys.exit(main())
