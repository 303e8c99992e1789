"""From the suites' JSON to bench/RESULTS.md and a plot."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from lorbms_fast.measurement.pairs import Pair


@dataclass(frozen=True)
class Row:
    """One benchmark: the times of its rounds (A the reference, B the fast form), and what was counted."""

    name: str
    times: Pair
    info: dict[str, Any]
    ceiling: str | None = None
    """What A is, if it does less than B has to."""


def rows(results: Path) -> list[Row]:
    """Every comparison in a pytest-benchmark JSON file."""
    found = []
    for entry in json.loads(results.read_text())["benchmarks"]:
        info = entry["extra_info"]
        if "what" not in info:  # the reference's own row
            continue
        times = Pair(info["reference_seconds"], info["fast_seconds"])
        found.append(Row(info["what"], times, info, info.get("ceiling")))
    return found


def tables(found: list[Row]) -> str:
    """Two Markdown tables: what is compared with a reference, and what with a ceiling."""
    parts = [_compared([row for row in found if not row.ceiling])]
    if bounded := [row for row in found if row.ceiling]:
        parts.append(f"Beside something that does less, and cannot be beaten:\n\n{_bounded(bounded)}")
    return "\n\n".join(parts)


def replaced(page: str, name: str, content: str) -> str:
    """The page with other content between the marks of a part; ValueError where it has no such part."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, there, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (there and ended):
        raise ValueError(f"put the lines {begin} and {end} where the table belongs")
    return f"{before}{begin}\n{content}\n{end}{after}"


def _bounded(found: list[Row]) -> str:
    lines = ["| what | the ceiling | its ms | ours, ms | part of its rate |", "|---|---|---:|---:|---:|"]
    for row in found:
        times = row.times
        numbers = f"{1e3 * median(times.a):.1f} | {1e3 * median(times.b):.1f} | {times.ratio:.2f}"
        lines.append(f"| {row.name} | {row.ceiling} | {numbers} |")
    return "\n".join(lines)


def _compared(found: list[Row]) -> str:
    """Times, ratio, and counts of both."""
    lines = [
        "| what | reference, ms | fast, ms | ratio | GFLOP | operations | GB moved | peak memory, GB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        times, info = row.times, row.info
        counts = memory = ""
        if "fast_counts" in info:
            a, b = info["reference_counts"], info["fast_counts"]
            counts = f"{a['gflop']:.1f} -> {b['gflop']:.1f} | {a['operations']:,} -> {b['operations']:,} | "
            counts += f"{a['gigabytes']:.1f} -> {b['gigabytes']:.1f}"
        if "fast_peak_gb" in info:
            memory = f"{info['reference_peak_gb']:.2f} -> {info['fast_peak_gb']:.2f}"
        lines.append(
            f"| {row.name} | {1e3 * median(times.a):.1f} | {1e3 * median(times.b):.1f} | **{times.ratio:.2f}** "
            f"| {counts or ' |  | '} | {memory} |"
        )
    return "\n".join(lines)


def plot(found: list[Row], title: str, target: Path) -> None:
    """Bars of the ratios to references, as a PNG."""
    found = [row for row in found if not row.ceiling]
    figure = Figure(figsize=(9, 0.32 * len(found) + 1.2), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([row.name for row in found], [row.times.ratio for row in found])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set(xlabel="times faster than the reference (median of paired rounds)")
    axes.set_title(title, fontsize=8)
    figure.savefig(target, dpi=110)
