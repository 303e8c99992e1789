"""From the suites' JSON to bench/RESULTS.md and a plot."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lorbms_fast.measurement.pairs import Pair


@dataclass(frozen=True)
class Row:
    """One benchmark: the times of its rounds (A the reference, B the fast form), and what was counted."""

    name: str
    times: Pair
    info: dict[str, Any]


def rows(results: Path) -> list[Row]:
    """Every comparison in a pytest-benchmark JSON file."""
    found = []
    for entry in json.loads(results.read_text())["benchmarks"]:
        info = entry["extra_info"]
        if "what" not in info:  # the reference's own row
            continue
        times = Pair(info["reference_seconds"], info["fast_seconds"])
        found.append(Row(info["what"], times, info))
    return found


def table(found: list[Row]) -> str:
    """A Markdown table: times, ratio, and counts of both."""
    lines = [
        "| what | reference, ms | fast, ms | ratio | GFLOP | operations | GB moved | peak memory, GB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        times, a, b = row.times, row.info["reference_counts"], row.info["fast_counts"]
        memory = (
            ""
            if "fast_peak_gb" not in row.info
            else (f"{row.info['reference_peak_gb']:.2f} -> {row.info['fast_peak_gb']:.2f}")
        )
        lines.append(
            f"| {row.name} | {1e3 * times.median_a:.1f} | {1e3 * times.median_b:.1f} | **{times.ratio:.2f}** "
            f"| {a['gflop']:.1f} -> {b['gflop']:.1f} | {a['operations']:,} -> {b['operations']:,} "
            f"| {a['gigabytes']:.1f} -> {b['gigabytes']:.1f} | {memory} |"
        )
    return "\n".join(lines)


def plot(found: list[Row], title: str, target: Path) -> None:
    """Bars of the ratios, as a PNG."""
    figure = Figure(figsize=(9, 0.32 * len(found) + 1.2), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([row.name for row in found], [row.times.ratio for row in found])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set(xlabel="times faster than the reference (median of paired rounds)")
    axes.set_title(title, fontsize=8)
    figure.savefig(target, dpi=110)
